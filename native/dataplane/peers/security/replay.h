/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_REPLAY_H_
#define _ONVM_REPLAY_H_

/**
 * @file
 * A window over the numbers of datagrams, which tells those that came before (RFC 6479: the bits of
 * a ring of words, so nothing is shifted).
 *
 * Threads: one.
 */

#include <stdbool.h>
#include <stdint.h>

#define ONVM_REPLAY_WORDS 16 /**< a power of two */
/** Numbers that may come later than a greater one. */
#define ONVM_REPLAY_WINDOW ((ONVM_REPLAY_WORDS - 1) * 64)

struct onvm_replay {
	uint64_t top; /**< greatest number that was seen; numbers begin at 1 */
	uint64_t words[ONVM_REPLAY_WORDS];
	uint32_t generation; /**< of the key that the numbers belong to */
};

/** Whether @p number was not seen yet and is not too old to tell. */
static inline bool
onvm_replay_is_new(const struct onvm_replay *window, uint64_t number)
{
	if (number > window->top)
		return true;
	if (number == 0 || window->top - number >= ONVM_REPLAY_WINDOW)
		return false;
	return (window->words[number / 64 % ONVM_REPLAY_WORDS] >> number % 64 & 1) == 0;
}

/** Note a number that is new and whose datagram is genuine. */
static inline void
onvm_replay_note(struct onvm_replay *window, uint64_t number)
{
	if (number > window->top) {
		uint64_t word = window->top / 64;
		const uint64_t last = number / 64;

		if (last - word > ONVM_REPLAY_WORDS)
			word = last - ONVM_REPLAY_WORDS;
		while (word < last)
			window->words[++word % ONVM_REPLAY_WORDS] = 0;
		window->top = number;
	}
	window->words[number / 64 % ONVM_REPLAY_WORDS] |= 1ull << number % 64;
}

#endif /* _ONVM_REPLAY_H_ */
