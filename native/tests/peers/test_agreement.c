/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: two ends that share a secret exchange messages over a wire that loses, doubles, delays and
 * repeats all that was ever said, while ends begin again and restart. Whenever the wire behaves for a
 * few messages, both agree and each opens what the other seals. A repeated message never makes
 * an end agree, an end with another secret never gets a datagram in, and no two agreements share a key.
 */
#include "peers/security/agreement.h"

#include <string.h>

#include "peers/security/seal.h"
#include "test.h"

#define WIRE_MAX 4096
#define PORT 50000

struct end {
	struct onvm_agreement agreement;
	struct onvm_peer_keys keys;
	uint64_t sequence, number;
};

static struct end ends[2];
static struct onvm_agreement_message said[2][WIRE_MAX];
static uint32_t nb_said[2];
static uint8_t secret[ONVM_SECRET_BYTES] = {1, 2, 3}, other_secret[ONVM_SECRET_BYTES] = {4};

static void
restart(struct end *end)
{
	const uint64_t sequence = end->sequence;

	memset(end, 0, sizeof(*end));
	end->agreement.secret = secret;
	end->sequence = sequence / 2; /* it remembers nothing of it */
	onvm_agreement_begin(&end->agreement);
}

static const struct onvm_agreement_message *
say(uint32_t i)
{
	struct onvm_agreement_message *message = &said[i][nb_said[i]++ % WIRE_MAX];

	onvm_agreement_say(&ends[i].agreement, message);
	message->sequence = ++ends[i].sequence;
	return message;
}

/** Let end @p i hear a message of the other. */
static enum onvm_agreement_news
hear(uint32_t i, const struct onvm_agreement_message *message)
{
	return onvm_agreement_take(&ends[i].agreement, &ends[i].keys, message, true);
}

/** Whether what end @p from seals is opened by @p to, and under which key. */
static bool
passes(struct end *from, struct end *to, enum onvm_security security)
{
	const struct onvm_out_key *out = onvm_keys_out(&from->keys);
	const struct onvm_gcm_key *in;
	uint8_t data[64 + ONVM_SEAL_BYTES];
	struct onvm_seal seal;
	uint32_t generation;

	if (out == NULL)
		return false;
	for (uint32_t i = 0; i < 64; i++)
		data[i] = (uint8_t)i;
	onvm_seal(out, security, 7, ++from->number, PORT, data, 64);
	CHECK(onvm_seal_read(data, sizeof(data), &seal));
	CHECK_EQUAL(seal.stream, 7);
	CHECK_EQUAL(seal.number, from->number);
	CHECK_EQUAL(security == ONVM_SECURITY_ENCRYPT,
		    data[ONVM_SEAL_CLEAR_BYTES] != ONVM_SEAL_CLEAR_BYTES ||
			    data[63] != 63); /* the text is not readable */
	in = onvm_keys_in(&to->keys, seal.key, &generation);
	if (in == NULL || !onvm_seal_open(in, security, PORT, data, sizeof(data)))
		return false;
	for (uint32_t i = 0; i < 64; i++)
		CHECK_EQUAL(data[i], i);
	return true;
}

static void
check_agreed(void)
{
	for (uint32_t k = 0; k < 2; k++) {
		CHECK(ends[k].agreement.is_agreed);
		CHECK(passes(&ends[k], &ends[1 - k], ONVM_SECURITY_AUTH));
		CHECK(passes(&ends[k], &ends[1 - k], ONVM_SECURITY_ENCRYPT));
	}
}

/** A few messages that all come through. */
static void
settle(void)
{
	for (int i = 0; i < 4; i++) {
		hear(1, say(0));
		hear(0, say(1));
	}
}

static void
begin_both(void)
{
	restart(&ends[0]);
	restart(&ends[1]);
	settle();
	check_agreed();
}

static void
test_three_messages_are_enough(void)
{
	restart(&ends[0]);
	restart(&ends[1]);
	CHECK_EQUAL(hear(1, say(0)), ONVM_AGREEMENT_HINT);
	CHECK_EQUAL(hear(0, say(1)), ONVM_AGREEMENT_AGREED);
	/* The other end is not sure yet, and yet opens what we seal. */
	CHECK(passes(&ends[0], &ends[1], ONVM_SECURITY_AUTH));
	CHECK_EQUAL(hear(1, say(0)), ONVM_AGREEMENT_AGREED);
	check_agreed();
	CHECK_EQUAL(hear(0, say(1)), ONVM_AGREEMENT_FRESH);
}

static void
test_repeated_messages_change_no_key(void)
{
	struct onvm_peer_keys before;
	uint8_t mine[ONVM_NONCE_BYTES];

	begin_both();
	restart(&ends[1]);
	settle();
	memcpy(&before, &ends[0].keys, sizeof(before));
	memcpy(mine, ends[0].agreement.mine, sizeof(mine));
	for (uint32_t i = 0; i < nb_said[1]; i++) {
		CHECK(hear(0, &said[1][i]) != ONVM_AGREEMENT_AGREED);
		CHECK_EQUAL(ends[0].keys.out_place, before.out_place);
	}
	CHECK(memcmp(ends[0].agreement.mine, mine, sizeof(mine)) == 0);
	CHECK(passes(&ends[1], &ends[0], ONVM_SECURITY_AUTH));
	settle();
	check_agreed();
}

static void
test_keys_are_replaced_while_datagrams_pass(void)
{
	begin_both();
	for (int i = 0; i < 1000; i++) {
		onvm_agreement_begin(&ends[i % 2].agreement);
		for (int k = 0; k < 3; k++) {
			hear(1, say(0));
			CHECK(passes(&ends[0], &ends[1], ONVM_SECURITY_AUTH));
			CHECK(passes(&ends[1], &ends[0], ONVM_SECURITY_AUTH));
			hear(0, say(1));
			CHECK(passes(&ends[0], &ends[1], ONVM_SECURITY_AUTH));
			CHECK(passes(&ends[1], &ends[0], ONVM_SECURITY_AUTH));
		}
		CHECK(!ends[0].agreement.is_pending && !ends[1].agreement.is_pending);
	}
}

static void
test_any_wire(void)
{
	uint64_t state = test_seed(0xa9);

	begin_both();
	for (int round = 0; round < 300; round++) {
		for (int i = 0; i < 30; i++) {
			const uint32_t to = test_random(&state) % 2, from = 1 - to;

			switch (test_random(&state) % 8) {
			case 0:
				onvm_agreement_begin(&ends[to].agreement);
				break;
			case 1:
				if (test_random(&state) % 8 == 0)
					restart(&ends[to]);
				break;
			case 2:
				say(from); /* lost */
				break;
			case 3:
			case 4:
				hear(to, say(from));
				break;
			default: { /* something that was said before */
				const uint32_t nb = nb_said[from] < WIRE_MAX ? nb_said[from] :
									       WIRE_MAX;

				if (nb != 0)
					hear(to, &said[from][test_random(&state) % nb]);
			}
			}
		}
		settle();
		check_agreed();
	}
}

static void
test_another_secret_opens_nothing(void)
{
	begin_both();
	ends[1].agreement.secret = other_secret;
	onvm_agreement_begin(&ends[0].agreement);
	onvm_agreement_begin(&ends[1].agreement);
	settle();
	CHECK(!passes(&ends[1], &ends[0], ONVM_SECURITY_AUTH));
	CHECK(!passes(&ends[0], &ends[1], ONVM_SECURITY_ENCRYPT));
}

int
main(void)
{
	CHECK_EQUAL(onvm_crypto_init(), 0);
	RUN(test_three_messages_are_enough);
	RUN(test_repeated_messages_change_no_key);
	RUN(test_keys_are_replaced_while_datagrams_pass);
	RUN(test_any_wire);
	RUN(test_another_secret_opens_nothing);
	return 0;
}
