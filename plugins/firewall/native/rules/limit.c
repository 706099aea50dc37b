/* SPDX-License-Identifier: Apache-2.0 */
#include "limit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"

struct limit_key {
	uint8_t end[ONVM_ADDRESS_BYTES]; /* the bits that count, the others 0 */
	uint32_t limit;
	uint8_t ip_version;
	uint8_t pad[11];
};
static_assert(sizeof(struct limit_key) == 32, "a multiple of 16: looked up in place");

struct limits {
	struct onvm_flow_table *ends;
	struct firewall_limit *all;
	struct firewall_bucket *buckets;
};

struct limits *
limits_create(const struct firewall_config *config)
{
	struct limits *const limits = calloc(1, sizeof(*limits));
	bool needs_ends = false;

	if (limits == NULL)
		return NULL;
	limits->all = calloc(config->nb_limits, sizeof(*limits->all));
	limits->buckets = calloc(config->nb_limits, sizeof(*limits->buckets));
	if (limits->all == NULL || limits->buckets == NULL)
		goto failed;
	memcpy(limits->all, config->limits, config->nb_limits * sizeof(*limits->all));
	for (uint32_t i = 0; i < config->nb_limits; i++)
		needs_ends |= limits->all[i].per != 0;
	if (needs_ends) {
		limits->ends = onvm_flow_table_create(config->max_limited, sizeof(struct limit_key),
						      sizeof(struct firewall_bucket));
		if (limits->ends == NULL)
			goto failed;
	}
	return limits;
failed:
	limits_free(limits);
	errno = ENOMEM;
	return NULL;
}

void
limits_free(struct limits *limits)
{
	if (limits == NULL)
		return;
	onvm_flow_table_free(limits->ends);
	free(limits->all);
	free(limits->buckets);
	free(limits);
}

static void
key_fill(struct limit_key *key, const struct firewall_limit *limit, uint32_t number,
	 uint8_t ip_version, const uint8_t *end)
{
	const uint32_t bits = ip_version == 4 ? limit->prefix4 : limit->prefix6;

	memset(key, 0, sizeof(*key));
	memcpy(key->end, end, bits / 8);
	if (bits % 8 != 0)
		key->end[bits / 8] = end[bits / 8] & (uint8_t)(0xff00u >> (bits % 8));
	key->limit = number;
	key->ip_version = ip_version;
}

/* The bucket of an end, as the one that was used last. */
static struct firewall_bucket *
bucket_of(struct onvm_flow_table *table, const struct limit_key *key, uint64_t now_ns)
{
	int32_t slot = onvm_flow_table_lookup(table, key);

	if (slot < 0) {
		slot = onvm_flow_table_add(table, key, now_ns);
		if (slot == -ENOSPC && onvm_flow_table_evict(table, NULL, NULL) == 0)
			slot = onvm_flow_table_add(table, key, now_ns);
	}
	if (slot < 0)
		return NULL;
	onvm_flow_table_set_evictable(table, slot, false); /* to the end of the queue */
	onvm_flow_table_set_evictable(table, slot, true);
	return onvm_flow_value(table, slot);
}

bool
limits_match(struct limits *limits, uint32_t number, uint8_t ip_version, const uint8_t *ends,
	     uint64_t now_ns)
{
	const struct firewall_limit *const limit = &limits->all[number];
	struct firewall_bucket *bucket = &limits->buckets[number];
	struct limit_key key;

	if (limit->per != 0) {
		key_fill(&key, limit, number, ip_version,
			 limit->per == 1 ? ends : ends + onvm_address_bytes(ip_version));
		bucket = bucket_of(limits->ends, &key, now_ns);
		if (bucket == NULL)
			return false;
	}
	return bucket_take(bucket, limit->cost_ns, limit->cap_ns, now_ns) != limit->is_above;
}
