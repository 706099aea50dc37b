/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: numbers in any order, against a set that forgets nothing: within the window every number is
 * new exactly once; what lies behind the window is never new; jumps of any size clear what they pass.
 */
#include "peers/security/replay.h"

#include <string.h>

#include "test.h"

#define NUMBERS_MAX 20000

static bool is_seen[NUMBERS_MAX];

static void
test_each_number_is_new_once(void)
{
	uint64_t state = test_seed(0xab);

	for (int round = 0; round < 20; round++) {
		struct onvm_replay window = {0};
		uint64_t top = 0, base = 1;

		memset(is_seen, 0, sizeof(is_seen));
		while (base + 3000 < NUMBERS_MAX) {
			const uint64_t number = base + test_random(&state) % 1200;
			const bool is_near = number > top || top - number < ONVM_REPLAY_WINDOW;
			const bool is_new = onvm_replay_is_new(&window, number);

			CHECK_EQUAL(is_new, is_near && !is_seen[number]);
			if (is_new)
				onvm_replay_note(&window, number);
			is_seen[number] |= is_new;
			top = number > top && is_new ? number : top;
			base += test_random(&state) % 4;
			if (test_random(&state) % 512 == 0)
				base += test_random(&state) % 2500;
		}
	}
}

static void
test_number_0_and_far_jumps(void)
{
	struct onvm_replay window = {0};

	CHECK(!onvm_replay_is_new(&window, 0));
	onvm_replay_note(&window, 1);
	onvm_replay_note(&window, 1ull << 47);
	CHECK(!onvm_replay_is_new(&window, 1ull << 47));
	CHECK(!onvm_replay_is_new(&window, 1));
	CHECK(onvm_replay_is_new(&window, (1ull << 47) - ONVM_REPLAY_WINDOW + 1));
	CHECK(!onvm_replay_is_new(&window, (1ull << 47) - ONVM_REPLAY_WINDOW));
}

int
main(void)
{
	RUN(test_each_number_is_new_once);
	RUN(test_number_0_and_far_jumps);
	return 0;
}
