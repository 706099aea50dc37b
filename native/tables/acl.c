/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/tables.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_acl.h>
#include <rte_errno.h>

#include <onvm/checksum.h>

#include "tables_priv.h"

/*
 * Run-time memory a table may take. rte_acl merges all rules into one trie if it is let, which for
 * firewall-like sets of 10,000 rules means gigabytes; with a limit it splits them into up to eight
 * tries, a little slower and far smaller.
 */
#define ACL_MAX_BYTES (64u << 20)
#define ACL_MAX_BYTES_LARGE (512u << 20)
#define ADDRESS_WORDS_MAX 4
#define FIELDS_MAX (1 + 2 * ADDRESS_WORDS_MAX + 2)

RTE_ACL_RULE_DEF(acl_rule, FIELDS_MAX);

struct onvm_acl {
	struct rte_acl_ctx *ctx;
};

static_assert(sizeof(struct onvm_tuple) == 40, "rte_acl reads it by these offsets");
static_assert(offsetof(struct onvm_tuple, src) == 4, "4-byte groups");
static_assert(offsetof(struct onvm_tuple, dst) == 20, "4-byte groups");
static_assert(offsetof(struct onvm_tuple, src_port) == 36, "both ports in one group");

static void
field_define(struct rte_acl_config *config, uint8_t type, uint8_t size, uint8_t group,
	     uint32_t offset)
{
	config->defs[config->num_fields] = (struct rte_acl_field_def){
		.type = type,
		.size = size,
		.field_index = (uint8_t)config->num_fields,
		.input_index = group,
		.offset = offset,
	};
	config->num_fields++;
}

/* The first field must be one byte long, all later ones come in groups of four. */
static void
config_fill(struct rte_acl_config *config, uint32_t nb_words)
{
	uint8_t group = 1;

	memset(config, 0, sizeof(*config));
	config->num_categories = 1;
	field_define(config, RTE_ACL_FIELD_TYPE_BITMASK, 1, 0,
		     offsetof(struct onvm_tuple, protocol));
	for (uint32_t i = 0; i < nb_words; i++)
		field_define(config, RTE_ACL_FIELD_TYPE_MASK, 4, group++,
			     (uint32_t)offsetof(struct onvm_tuple, src) + 4 * i);
	for (uint32_t i = 0; i < nb_words; i++)
		field_define(config, RTE_ACL_FIELD_TYPE_MASK, 4, group++,
			     (uint32_t)offsetof(struct onvm_tuple, dst) + 4 * i);
	field_define(config, RTE_ACL_FIELD_TYPE_RANGE, 2, group,
		     offsetof(struct onvm_tuple, src_port));
	field_define(config, RTE_ACL_FIELD_TYPE_RANGE, 2, group,
		     offsetof(struct onvm_tuple, dst_port));
}

static struct rte_acl_field *
address_fill(struct rte_acl_field *field, const uint8_t *address, uint32_t prefix,
	     uint32_t nb_words)
{
	for (uint32_t i = 0; i < nb_words; i++, field++) {
		const uint32_t bits = prefix > 32 ? 32 : prefix;

		field->value.u32 = onvm_load_be32(address + 4 * i);
		field->mask_range.u32 = bits;
		prefix -= bits;
	}
	return field;
}

static bool
rule_is_valid(const struct onvm_acl_rule *rule, uint32_t nb_words)
{
	return rule->src_prefix <= 32 * nb_words && rule->dst_prefix <= 32 * nb_words &&
	       rule->src_port_first <= rule->src_port_last &&
	       rule->dst_port_first <= rule->dst_port_last &&
	       rule->priority >= RTE_ACL_MIN_PRIORITY && rule->priority <= RTE_ACL_MAX_PRIORITY &&
	       rule->value != 0 && rule->value != ONVM_TABLE_MISS;
}

static void
rule_fill(struct acl_rule *out, const struct onvm_acl_rule *rule, uint32_t nb_words)
{
	struct rte_acl_field *field = out->field;

	memset(out, 0, sizeof(*out));
	out->data.category_mask = 1;
	out->data.priority = rule->priority;
	out->data.userdata = rule->value;
	field->value.u8 = rule->protocol & rule->protocol_mask;
	field->mask_range.u8 = rule->protocol_mask;
	field = address_fill(field + 1, rule->src, rule->src_prefix, nb_words);
	field = address_fill(field, rule->dst, rule->dst_prefix, nb_words);
	field[0].value.u16 = rule->src_port_first;
	field[0].mask_range.u16 = rule->src_port_last;
	field[1].value.u16 = rule->dst_port_first;
	field[1].mask_range.u16 = rule->dst_port_last;
}

static int
rules_add(struct rte_acl_ctx *ctx, const struct onvm_acl_rule *rules, uint32_t nb_rules,
	  uint32_t nb_words)
{
	for (uint32_t i = 0; i < nb_rules; i++) {
		struct acl_rule rule;
		int rc;

		if (!rule_is_valid(&rules[i], nb_words))
			return -EINVAL;
		rule_fill(&rule, &rules[i], nb_words);
		rc = rte_acl_add_rules(ctx, (const struct rte_acl_rule *)&rule, 1);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int
acl_build(struct rte_acl_ctx *ctx, uint32_t nb_words)
{
	struct rte_acl_config config;
	int rc;

	config_fill(&config, nb_words);
	config.max_size = ACL_MAX_BYTES;
	rc = rte_acl_build(ctx, &config);
	if (rc == -ERANGE || rc == -ENOMEM) {
		config.max_size = ACL_MAX_BYTES_LARGE;
		rc = rte_acl_build(ctx, &config);
	}
	return rc;
}

struct onvm_acl *
onvm_acl_create(uint32_t ip_version, const struct onvm_acl_rule *rules, uint32_t nb_rules)
{
	const uint32_t nb_words = ip_version == 6 ? ADDRESS_WORDS_MAX : 1;
	char name[ONVM_TABLE_NAME_SIZE];
	struct rte_acl_param param = {
		.name = name,
		.socket_id = SOCKET_ID_ANY,
		.rule_size = RTE_ACL_RULE_SZ(3 + 2 * nb_words),
		.max_rule_num = nb_rules,
	};
	struct onvm_acl *acl;
	int rc;

	if ((ip_version != 4 && ip_version != 6) || nb_rules == 0) {
		errno = EINVAL;
		return NULL;
	}
	rc = onvm_tables_init(0);
	if (rc != 0) {
		errno = -rc;
		return NULL;
	}
	acl = calloc(1, sizeof(*acl));
	if (acl == NULL)
		return NULL;
	onvm_table_name(name, "acl");
	acl->ctx = rte_acl_create(&param);
	rc = acl->ctx == NULL ? -rte_errno : rules_add(acl->ctx, rules, nb_rules, nb_words);
	if (rc == 0)
		rc = acl_build(acl->ctx, nb_words);
	if (rc != 0) {
		onvm_acl_free(acl);
		errno = -rc;
		return NULL;
	}
	return acl;
}

int
onvm_acl_lookup(const struct onvm_acl *acl, const struct onvm_tuple *tuples, uint32_t *values,
		uint32_t nb)
{
	const uint8_t *data[ONVM_TABLE_CHUNK];

	for (uint32_t first = 0; first < nb; first += ONVM_TABLE_CHUNK) {
		const uint32_t length = nb - first < ONVM_TABLE_CHUNK ? nb - first :
									ONVM_TABLE_CHUNK;
		int rc;

		for (uint32_t i = 0; i < length; i++)
			data[i] = (const uint8_t *)&tuples[first + i];
		rc = rte_acl_classify(acl->ctx, data, values + first, length, 1);
		if (rc != 0)
			return rc;
	}
	return 0;
}

void
onvm_acl_free(struct onvm_acl *acl)
{
	if (acl == NULL)
		return;
	rte_acl_free(acl->ctx);
	free(acl);
}
