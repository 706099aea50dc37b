/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/security/agreement.h"

#include <string.h>
#include <sys/random.h>

static const uint8_t none[ONVM_NONCE_BYTES];

static bool
is_equal(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, ONVM_NONCE_BYTES) == 0;
}

void
onvm_agreement_begin(struct onvm_agreement *agreement)
{
	if (agreement->is_pending)
		return;
	/* Of so few bytes the kernel gives all, once it has been seeded. */
	(void)getrandom(agreement->drawn, sizeof(agreement->drawn), 0);
	agreement->is_pending = true;
	agreement->is_accepting = false;
	agreement->key++;
}

/** Key for what goes from the end with nonce @p from to the one with @p to, which has given it @p number. */
static void
derive(const uint8_t *secret, const uint8_t *from, const uint8_t *to, uint8_t number, uint8_t *key)
{
	static const char label[] = "onvm datagrams 1";
	uint8_t data[sizeof(label) + 2 * ONVM_NONCE_BYTES + 1];

	memcpy(data, label, sizeof(label));
	memcpy(data + sizeof(label), from, ONVM_NONCE_BYTES);
	memcpy(data + sizeof(label) + ONVM_NONCE_BYTES, to, ONVM_NONCE_BYTES);
	data[sizeof(data) - 1] = number;
	onvm_hmac(secret, data, sizeof(data), key); /* its first ONVM_GCM_KEY_BYTES count */
}

/**
 * Accept what comes under the nonce that was drawn and the peer's nonce @p theirs. A key is set once:
 * with it begins a new window for replays.
 */
static void
accept_under(struct onvm_agreement *agreement, struct onvm_peer_keys *keys, const uint8_t *theirs)
{
	uint8_t key[ONVM_HMAC_BYTES];

	if (agreement->is_accepting && is_equal(agreement->heard, theirs))
		return;
	derive(agreement->secret, theirs, agreement->drawn, agreement->key, key);
	onvm_keys_set_in(keys, agreement->key, key);
	memcpy(agreement->heard, theirs, ONVM_NONCE_BYTES);
	agreement->is_accepting = true;
}

static enum onvm_agreement_news
take_hint(struct onvm_agreement *agreement, struct onvm_peer_keys *keys, const uint8_t *nonce)
{
	onvm_agreement_begin(agreement);
	/* The peer may use them as soon as it has heard ours, before we have heard that it did. */
	accept_under(agreement, keys, nonce);
	return ONVM_AGREEMENT_HINT;
}

static enum onvm_agreement_news
agree(struct onvm_agreement *agreement, struct onvm_peer_keys *keys,
      const struct onvm_agreement_message *message)
{
	uint8_t key[ONVM_HMAC_BYTES];

	accept_under(agreement, keys, message->nonce);
	memcpy(agreement->theirs, message->nonce, ONVM_NONCE_BYTES);
	memcpy(agreement->mine, agreement->drawn, ONVM_NONCE_BYTES);
	agreement->is_agreed = true;
	agreement->is_pending = false;
	agreement->sequence = message->sequence;
	derive(agreement->secret, agreement->mine, agreement->theirs, message->key, key);
	onvm_keys_set_out(keys, message->key, key);
	/* The one before may still be on the way; the one before that is not. */
	onvm_keys_end_in(keys, (uint8_t)(agreement->key - 2));
	return ONVM_AGREEMENT_AGREED;
}

enum onvm_agreement_news
onvm_agreement_take(struct onvm_agreement *agreement, struct onvm_peer_keys *keys,
		    const struct onvm_agreement_message *message, bool takes_hints)
{
	if (is_equal(message->nonce, none))
		return ONVM_AGREEMENT_OLD;
	if (agreement->is_pending && is_equal(message->heard, agreement->drawn))
		return agree(agreement, keys, message);
	if (!agreement->is_agreed || !is_equal(message->nonce, agreement->theirs))
		return takes_hints ? take_hint(agreement, keys, message->nonce) :
				     ONVM_AGREEMENT_OLD;
	if (!is_equal(message->heard, agreement->mine) || message->sequence <= agreement->sequence)
		return ONVM_AGREEMENT_OLD;
	agreement->sequence = message->sequence;
	return ONVM_AGREEMENT_FRESH;
}

void
onvm_agreement_say(const struct onvm_agreement *agreement, struct onvm_agreement_message *message)
{
	memcpy(message->nonce, agreement->is_pending ? agreement->drawn : agreement->mine,
	       ONVM_NONCE_BYTES);
	memcpy(message->heard, agreement->heard, ONVM_NONCE_BYTES);
	message->key = agreement->key;
}
