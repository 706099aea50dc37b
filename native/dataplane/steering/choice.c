/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/choice.h"

#include "steering/mix.h"

bool
onvm_choice_has(const struct onvm_choice *choice, uint16_t host)
{
	for (uint32_t i = 0; i < (uint32_t)choice->nb_hosts + choice->nb_draining; i++)
		if (choice->hosts[i] == host)
			return true;
	return false;
}

uint16_t
onvm_choice_wished(const struct onvm_choice *choice, const struct onvm_wishes *wishes)
{
	for (uint32_t i = 0; wishes != NULL && i < wishes->nb; i++)
		if (onvm_choice_has(choice, wishes->hosts[i]))
			return wishes->hosts[i];
	return 0;
}

uint16_t
onvm_choice_by_hash(const struct onvm_choice *choice, uint64_t hash)
{
	uint16_t best = 0;
	uint64_t highest = 0;

	for (uint32_t i = 0; i < choice->nb_hosts; i++) {
		const uint64_t rank = onvm_mix(hash ^ onvm_mix(choice->hosts[i]));

		if (best != 0 && rank <= highest)
			continue;
		best = choice->hosts[i];
		highest = rank;
	}
	return best;
}
