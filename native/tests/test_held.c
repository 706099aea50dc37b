/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: packets that an NF holds, without a host.
 *  - a token finds its packet until the packet is released, and never again
 *  - at the limit nothing is held, and the packet stays as it is
 *  - another verdict after hold() undoes it, also when the packet has been released since
 *  - packets come back in the order of their release, and in that of their arrival if all are let go
 *  - random calls agree with a plain model of them
 */
#include <string.h>

#include <errno.h>

#include "../nf/held.h"

#include "test.h"

#define CAPACITY 64

static struct onvm_pkt
packet(uint32_t buffer)
{
	return (struct onvm_pkt){.buffer = buffer, .length = 60};
}

static void
test_token_is_good_once(void)
{
	struct onvm_held *held = onvm_held_create(2);
	struct onvm_pkt pkts[2] = {packet(7), packet(8)}, out[2];
	const uint32_t token = onvm_held_add(held, &pkts[0]);

	CHECK(token > ONVM_HOLD);
	CHECK_EQUAL(pkts[0].verdict, ONVM_HOLD);
	CHECK_EQUAL(onvm_held_get(held, token)->buffer, 7);
	CHECK_EQUAL(onvm_held_settle(held, pkts, 2), 1);
	CHECK_EQUAL(pkts[0].buffer, 8);
	CHECK_EQUAL(onvm_held_release(held, token, ONVM_OUT, 3), 0);
	CHECK(onvm_held_get(held, token) == NULL);
	CHECK_EQUAL(onvm_held_release(held, token, ONVM_NEXT, 0), -ENOENT);
	CHECK_EQUAL(onvm_held_take(held, out, 2), 1);
	CHECK_EQUAL(out[0].buffer, 7);
	CHECK_EQUAL(out[0].verdict, ONVM_OUT);
	CHECK_EQUAL(out[0].destination, 3);
	for (int turn = 0; turn < 3; turn++) { /* the same slot, another token */
		pkts[0] = packet(9);
		CHECK(onvm_held_add(held, &pkts[0]) != token);
		onvm_held_settle(held, pkts, 1);
		CHECK(onvm_held_get(held, token) == NULL);
		CHECK_EQUAL(onvm_held_release_all(held), 1);
		CHECK_EQUAL(onvm_held_take(held, out, 2), 1);
	}
	CHECK(onvm_held_get(held, 0) == NULL);
	CHECK(onvm_held_get(held, UINT32_MAX) == NULL);
	onvm_held_free(held);
}

static void
test_limit(void)
{
	struct onvm_held *held = onvm_held_create(4);
	struct onvm_pkt pkts[4] = {packet(0), packet(1), packet(2), packet(3)};
	uint32_t first;

	onvm_held_limit(held, 2);
	first = onvm_held_add(held, &pkts[0]);
	CHECK(first != 0);
	CHECK(onvm_held_add(held, &pkts[1]) != 0);
	CHECK_EQUAL(onvm_held_add(held, &pkts[2]), 0);
	CHECK_EQUAL(pkts[2].verdict, ONVM_NEXT);
	CHECK_EQUAL(onvm_held_refused(held), 1);
	CHECK_EQUAL(onvm_held_settle(held, pkts, 4), 2);
	onvm_held_release(held, first, ONVM_NEXT, 0); /* not taken yet: it still counts */
	CHECK_EQUAL(onvm_held_add(held, &pkts[3]), 0);
	CHECK_EQUAL(onvm_held_forget(held), 2);
	CHECK_EQUAL(onvm_held_count(held), 0);
	CHECK_EQUAL(onvm_held_total(held), 2);
	CHECK_EQUAL(onvm_held_add(NULL, &pkts[3]), 0);
	CHECK(onvm_held_create(0) == NULL && onvm_held_create(ONVM_HELD_MAX + 1) == NULL);
	onvm_held_free(held);
	onvm_held_free(NULL);
}

static void
test_another_verdict_undoes_it(void)
{
	struct onvm_held *held = onvm_held_create(4);
	struct onvm_pkt pkts[2] = {packet(0), packet(1)}, out[2];
	const uint32_t first = onvm_held_add(held, &pkts[0]);
	const uint32_t second = onvm_held_add(held, &pkts[1]);

	onvm_held_release(held, second, ONVM_NEXT, 0);
	onvm_pkt_drop(&pkts[0], 0);
	onvm_pkt_drop(&pkts[1], 0);
	CHECK_EQUAL(onvm_held_settle(held, pkts, 2), 2);
	CHECK(onvm_held_get(held, first) == NULL);
	CHECK_EQUAL(onvm_held_take(held, out, 2), 0);
	onvm_held_free(held);
}

struct model {
	uint32_t token[CAPACITY], buffer[CAPACITY], nb_held;
	uint32_t released[CAPACITY], nb_released;
};

static void
model_release(struct model *model, uint32_t at)
{
	model->released[model->nb_released++] = model->buffer[at];
	model->nb_held--;
	memmove(&model->token[at], &model->token[at + 1],
		(model->nb_held - at) * sizeof(model->token[0]));
	memmove(&model->buffer[at], &model->buffer[at + 1],
		(model->nb_held - at) * sizeof(model->buffer[0]));
}

static void
take_all(struct onvm_held *held, struct model *model)
{
	struct onvm_pkt out[CAPACITY];
	uint32_t nb = onvm_held_take(held, out, CAPACITY);

	CHECK_EQUAL(nb, model->nb_released);
	for (uint32_t i = 0; i < nb; i++)
		CHECK_EQUAL(out[i].buffer, model->released[i]);
	model->nb_released = 0;
}

static void
test_random_calls_agree_with_a_model(void)
{
	struct onvm_held *held = onvm_held_create(CAPACITY);
	struct model model = {.nb_held = 0};
	uint64_t state = test_seed(5);
	uint32_t buffer = 0;

	for (int turn = 0; turn < 20000; turn++) {
		struct onvm_pkt pkts[8];
		uint32_t nb = test_random(&state) % 8, nb_kept = 0;

		for (uint32_t i = 0; i < nb; i++) {
			pkts[i] = packet(buffer);
			if (test_random(&state) % 2 == 0) {
				nb_kept++;
			} else {
				const uint32_t token = onvm_held_add(held, &pkts[i]);

				CHECK_EQUAL(token != 0,
					    model.nb_held + model.nb_released < CAPACITY);
				if (token == 0) {
					nb_kept++;
				} else {
					model.token[model.nb_held] = token;
					model.buffer[model.nb_held++] = buffer;
				}
			}
			buffer++;
		}
		CHECK_EQUAL(onvm_held_settle(held, pkts, nb), nb_kept);
		for (uint32_t i = test_random(&state) % 6; i > 0 && model.nb_held != 0; i--) {
			const uint32_t at = test_random(&state) % model.nb_held;

			CHECK_EQUAL(onvm_held_get(held, model.token[at])->buffer, model.buffer[at]);
			CHECK_EQUAL(onvm_held_release(held, model.token[at], ONVM_NEXT, 0), 0);
			model_release(&model, at);
		}
		CHECK_EQUAL(onvm_held_count(held), model.nb_held);
		CHECK_EQUAL(onvm_held_released(held), model.nb_released);
		if (test_random(&state) % 3 == 0)
			take_all(held, &model);
		if (test_random(&state) % 50 == 0) {
			CHECK_EQUAL(onvm_held_release_all(held), model.nb_held);
			while (model.nb_held != 0)
				model_release(&model, 0);
		}
	}
	onvm_held_free(held);
}

int
main(void)
{
	RUN(test_token_is_good_once);
	RUN(test_limit);
	RUN(test_another_verdict_undoes_it);
	RUN(test_random_calls_agree_with_a_model);
	return 0;
}
