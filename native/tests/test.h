/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TEST_H_
#define _ONVM_TEST_H_

/**
 * @file
 * What a C test needs: a check that says where it failed, and a seeded random source.
 *
 * A test is a program; its main() calls the cases with RUN() and returns 0. The first failing
 * check ends it with status 1.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

#define CHECK_EQUAL(got, wanted)                                                                  \
	do {                                                                                      \
		const long long got_ = (long long)(got), wanted_ = (long long)(wanted);           \
		if (got_ != wanted_) {                                                            \
			fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", __FILE__, __LINE__, \
				#got, got_, wanted_);                                             \
			exit(1);                                                                  \
		}                                                                                 \
	} while (0)

#define RUN(test)                         \
	do {                              \
		test();                   \
		printf("ok %s\n", #test); \
	} while (0)

/**
 * A seed for test_random(): @p fixed, or another one for each value of ONVM_TEST_SEED (a number in
 * the environment), which is printed. So a test draws the same numbers in each run, a fuzzing loop
 * others, and what it finds comes back with the value it printed.
 */
static inline uint64_t
test_seed(uint64_t fixed)
{
	static bool is_printed;
	const char *const given = getenv("ONVM_TEST_SEED");
	const uint64_t seed = fixed ^ (given != NULL ? strtoull(given, NULL, 0) : 0);

	if (given != NULL && !__atomic_exchange_n(&is_printed, true, __ATOMIC_RELAXED))
		fprintf(stderr, "ONVM_TEST_SEED=%s\n", given);
	return seed != 0 ? seed : UINT64_MAX; /* from 0, xorshift goes nowhere */
}

/** Next number of a sequence that depends on the seed in @p state only (xorshift64*). */
static inline uint32_t
test_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)((*state * 0x2545f4914f6cdd1dull) >> 32);
}

#endif /* _ONVM_TEST_H_ */
