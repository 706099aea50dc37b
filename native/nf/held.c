/* SPDX-License-Identifier: Apache-2.0 */
#include "held.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

enum state {
	FREE = 0,
	HELD,
	RELEASED,
};

struct slot {
	struct onvm_pkt pkt;
	const struct onvm_pkt *in_burst; /* while the kernel that held it has not returned */
	uint16_t uses;			 /* never 0 in a token */
	uint8_t state;
	uint32_t before, behind; /* in the list of its state */
};

/* A list of slots; free ones are linked by `behind` alone. */
struct list {
	uint32_t first, last;
};

struct onvm_held {
	uint32_t capacity, limit;
	uint32_t nb_held, nb_released, nb_new;
	uint64_t nb_total, nb_refused;
	struct list free, held, released;
	uint32_t *new; /* slots of the burst in work */
	struct slot slot[];
};

static void
append(struct onvm_held *held, struct list *list, uint32_t index)
{
	struct slot *slot = &held->slot[index];

	slot->before = list->last;
	slot->behind = NONE;
	if (list->last == NONE)
		list->first = index;
	else
		held->slot[list->last].behind = index;
	list->last = index;
}

static void
take_out(struct onvm_held *held, struct list *list, uint32_t index)
{
	const struct slot *slot = &held->slot[index];

	if (slot->before == NONE)
		list->first = slot->behind;
	else
		held->slot[slot->before].behind = slot->behind;
	if (slot->behind == NONE)
		list->last = slot->before;
	else
		held->slot[slot->behind].before = slot->before;
}

static void
release_slot(struct onvm_held *held, uint32_t index)
{
	take_out(held, &held->held, index);
	held->slot[index].state = RELEASED;
	append(held, &held->released, index);
	held->nb_held--;
	held->nb_released++;
}

/* Out of the list that it is in, and free. */
static void
free_slot(struct onvm_held *held, uint32_t index)
{
	struct slot *slot = &held->slot[index];

	if (slot->state == HELD) {
		take_out(held, &held->held, index);
		held->nb_held--;
	} else {
		take_out(held, &held->released, index);
		held->nb_released--;
	}
	slot->state = FREE;
	append(held, &held->free, index);
}

struct onvm_held *
onvm_held_create(uint32_t capacity)
{
	struct onvm_held *held;

	if (capacity == 0 || capacity > ONVM_HELD_MAX)
		return NULL;
	held = calloc(1, sizeof(*held) + capacity * sizeof(held->slot[0]));
	if (held == NULL)
		return NULL;
	held->new = calloc(capacity, sizeof(*held->new));
	if (held->new == NULL) {
		free(held);
		return NULL;
	}
	held->capacity = held->limit = capacity;
	held->free = held->held = held->released = (struct list){NONE, NONE};
	for (uint32_t index = 0; index < capacity; index++)
		append(held, &held->free, index);
	return held;
}

void
onvm_held_free(struct onvm_held *held)
{
	if (held == NULL)
		return;
	free(held->new);
	free(held);
}

void
onvm_held_limit(struct onvm_held *held, uint32_t limit)
{
	held->limit = limit < held->capacity ? limit : held->capacity;
}

uint32_t
onvm_held_add(struct onvm_held *held, struct onvm_pkt *pkt)
{
	uint32_t index;
	struct slot *slot;

	if (held == NULL)
		return 0;
	/* Released packets count until they have left: they still have their slots and credits. */
	if (held->nb_held + held->nb_released >= held->limit) {
		held->nb_refused++;
		return 0;
	}
	index = held->free.first;
	slot = &held->slot[index];
	take_out(held, &held->free, index);
	append(held, &held->held, index);
	if (++slot->uses == 0)
		slot->uses = 1;
	slot->state = HELD;
	slot->in_burst = pkt;
	slot->pkt = *pkt;
	slot->pkt.verdict = ONVM_NEXT;
	pkt->verdict = ONVM_HOLD;
	held->new[held->nb_new++] = index;
	held->nb_held++;
	held->nb_total++;
	return (uint32_t)slot->uses << 16 | index;
}

static struct slot *
find(struct onvm_held *held, uint32_t token)
{
	const uint32_t index = token & 0xffff;

	if (held == NULL || index >= held->capacity || held->slot[index].state != HELD ||
	    held->slot[index].uses != token >> 16)
		return NULL;
	return &held->slot[index];
}

struct onvm_pkt *
onvm_held_get(struct onvm_held *held, uint32_t token)
{
	struct slot *slot = find(held, token);

	return slot == NULL ? NULL : &slot->pkt;
}

int
onvm_held_release(struct onvm_held *held, uint32_t token, uint32_t verdict, uint32_t destination)
{
	struct slot *slot = find(held, token);

	if (slot == NULL)
		return -ENOENT;
	slot->pkt.verdict = (uint8_t)verdict;
	slot->pkt.destination = (uint16_t)destination;
	release_slot(held, token & 0xffff);
	return 0;
}

uint32_t
onvm_held_release_all(struct onvm_held *held)
{
	const uint32_t nb = held->nb_held;

	while (held->held.first != NONE)
		release_slot(held, held->held.first);
	return nb;
}

uint32_t
onvm_held_count(const struct onvm_held *held)
{
	return held->nb_held;
}

uint64_t
onvm_held_total(const struct onvm_held *held)
{
	return held->nb_total;
}

uint64_t
onvm_held_refused(const struct onvm_held *held)
{
	return held->nb_refused;
}

uint32_t
onvm_held_limit_of(const struct onvm_held *held)
{
	return held->limit;
}

uint32_t
onvm_held_settle(struct onvm_held *held, struct onvm_pkt *pkts, uint32_t nb)
{
	uint32_t nb_left = 0;

	if (held->nb_new == 0)
		return nb;
	/* A packet that has another verdict by now is not held: the burst still has it. */
	for (uint32_t i = 0; i < held->nb_new; i++) {
		struct slot *slot = &held->slot[held->new[i]];

		if (slot->state != FREE && slot->in_burst->verdict != ONVM_HOLD)
			free_slot(held, held->new[i]);
		slot->in_burst = NULL;
	}
	held->nb_new = 0;
	for (uint32_t i = 0; i < nb; i++)
		if (pkts[i].verdict != ONVM_HOLD)
			pkts[nb_left++] = pkts[i];
	return nb_left;
}

uint32_t
onvm_held_released(const struct onvm_held *held)
{
	return held->nb_released;
}

uint32_t
onvm_held_take(struct onvm_held *held, struct onvm_pkt *pkts, uint32_t nb)
{
	uint32_t nb_taken = 0;

	while (nb_taken < nb && held->released.first != NONE) {
		const uint32_t index = held->released.first;

		pkts[nb_taken++] = held->slot[index].pkt;
		free_slot(held, index);
	}
	return nb_taken;
}

uint32_t
onvm_held_forget(struct onvm_held *held)
{
	const uint32_t nb = held->nb_held + held->nb_released;

	while (held->held.first != NONE)
		free_slot(held, held->held.first);
	while (held->released.first != NONE)
		free_slot(held, held->released.first);
	held->nb_new = 0;
	return nb;
}

uint32_t
onvm_ctx_hold(struct onvm_ctx *ctx, struct onvm_pkt *pkt)
{
	return onvm_held_add(ctx->held_packets, pkt);
}

struct onvm_pkt *
onvm_ctx_held(struct onvm_ctx *ctx, uint32_t token)
{
	return onvm_held_get(ctx->held_packets, token);
}

int
onvm_ctx_release(struct onvm_ctx *ctx, uint32_t token, uint32_t verdict, uint32_t destination)
{
	return onvm_held_release(ctx->held_packets, token, verdict, destination);
}
