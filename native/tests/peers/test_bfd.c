/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: two ends of a BFD session come up, and go down together (RFC 5880 section 6.8.6); packets
 * are laid out as section 4.1 shows; what is damaged, foreign or unwanted changes nothing.
 */
#include "peers/bfd.h"

#include "test.h"

static struct onvm_bfd
session(uint32_t local)
{
	return (struct onvm_bfd){.state = ONVM_BFD_DOWN,
				 .local = local,
				 .interval_us = 30000,
				 .multiplier = 4};
}

/** Let @p to hear what @p from, or a stranger in its name, has to say. */
static bool
tell_as(const struct onvm_bfd *from, struct onvm_bfd *to, bool is_fresh)
{
	uint8_t data[ONVM_BFD_BYTES];

	onvm_bfd_write(from, data);
	return onvm_bfd_receive(to, data, sizeof(data), is_fresh);
}

/** Let @p to hear what @p from has to say: that has been proved. */
static bool
tell(const struct onvm_bfd *from, struct onvm_bfd *to)
{
	return tell_as(from, to, true);
}

static void
bring_up(struct onvm_bfd *a, struct onvm_bfd *b)
{
	*a = session(1);
	*b = session(2);
	CHECK(tell(a, b));
	CHECK_EQUAL(b->state, ONVM_BFD_INIT);
	CHECK(tell(b, a));
	CHECK_EQUAL(a->state, ONVM_BFD_UP);
	CHECK(tell(a, b));
	CHECK_EQUAL(b->state, ONVM_BFD_UP);
}

static void
test_layout(void)
{
	struct onvm_bfd a = session(0x01020304);
	const uint8_t wanted[ONVM_BFD_BYTES] = {
		0x20, 0xc0, 4, 24, 1, 2, 3, 4, 0, 0, 0, 9, 0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30,
	};
	uint8_t data[ONVM_BFD_BYTES];

	a.state = ONVM_BFD_UP;
	a.remote = 9;
	onvm_bfd_write(&a, data);
	CHECK(memcmp(data, wanted, sizeof(data)) == 0);
}

static void
test_both_come_up_and_stay(void)
{
	struct onvm_bfd a, b;

	bring_up(&a, &b);
	for (int i = 0; i < 10; i++)
		CHECK(tell(&a, &b) && tell(&b, &a));
	CHECK(a.state == ONVM_BFD_UP && b.state == ONVM_BFD_UP);
	CHECK(a.remote == 2 && b.remote == 1);
}

static void
test_who_hears_nothing_tells_the_other(void)
{
	struct onvm_bfd a, b;

	bring_up(&a, &b);
	onvm_bfd_go_down(&a, ONVM_BFD_EXPIRED);
	CHECK(tell(&a, &b));
	CHECK_EQUAL(b.state, ONVM_BFD_DOWN);
	CHECK_EQUAL(b.diagnostic, ONVM_BFD_NEIGHBOUR_DOWN);
	CHECK(tell(&b, &a) && tell(&a, &b) && tell(&b, &a));
	CHECK(a.state == ONVM_BFD_UP && b.state == ONVM_BFD_UP);
}

static void
test_one_that_closes_is_down_at_once(void)
{
	struct onvm_bfd a, b;

	bring_up(&a, &b);
	a.state = ONVM_BFD_ADMIN_DOWN;
	CHECK(tell(&a, &b));
	CHECK_EQUAL(b.state, ONVM_BFD_DOWN);
	CHECK(tell(&a, &b));
	CHECK_EQUAL(b.state, ONVM_BFD_DOWN);
	CHECK(tell(&b, &a));
	CHECK_EQUAL(a.state, ONVM_BFD_ADMIN_DOWN);
}

static void
test_one_that_starts_again_is_noticed(void)
{
	struct onvm_bfd a, b;

	bring_up(&a, &b);
	a = session(3);
	CHECK(tell(&a, &b)); /* knows no discriminator of ours yet, and is down */
	CHECK_EQUAL(b.state, ONVM_BFD_DOWN);
	CHECK_EQUAL(b.remote, 0);
}

static void
test_what_is_none_of_it_changes_nothing(void)
{
	struct onvm_bfd a, b, before;
	uint8_t data[ONVM_BFD_BYTES];
	uint64_t seed = test_seed(11);

	bring_up(&a, &b);
	a.remote = 77; /* of another session */
	CHECK(!tell(&a, &b));
	a.remote = 0; /* up without knowing us */
	CHECK(!tell(&a, &b));
	before = b;
	onvm_bfd_write(&a, data);
	for (uint32_t length = 0; length < sizeof(data); length++)
		CHECK(!onvm_bfd_receive(&b, data, length, true));
	CHECK(memcmp(&b, &before, sizeof(b)) == 0);
	for (int i = 0; i < 100000; i++) {
		struct onvm_bfd c = before;

		for (uint32_t k = 0; k < sizeof(data); k++)
			data[k] = (uint8_t)test_random(&seed);
		if (!onvm_bfd_receive(&c, data, sizeof(data), true))
			CHECK(memcmp(&c, &before, sizeof(c)) == 0);
		CHECK(c.state <= ONVM_BFD_UP);
	}
}

static void
test_one_that_names_no_session_takes_none_down(void)
{
	struct onvm_bfd a, b, stranger = session(77);

	bring_up(&a, &b);
	CHECK(!tell_as(&stranger, &a, false));
	stranger.state = ONVM_BFD_ADMIN_DOWN;
	CHECK(!tell_as(&stranger, &a, false));
	CHECK_EQUAL(a.state, ONVM_BFD_UP);
	CHECK_EQUAL(a.remote, b.local);
	/* What is known to be fresh counts: the end has begun again. */
	stranger.state = ONVM_BFD_DOWN;
	CHECK(tell(&stranger, &a));
	CHECK_EQUAL(a.state, ONVM_BFD_DOWN);
	/* Without proof sessions come up, too. */
	a = session(1);
	b = session(2);
	CHECK(tell_as(&a, &b, false) && tell_as(&b, &a, false) && tell_as(&a, &b, false));
	CHECK(a.state == ONVM_BFD_UP && b.state == ONVM_BFD_UP);
}

static void
test_neither_end_gets_more_packets_than_it_wants(void)
{
	struct onvm_bfd a = session(1), b = session(2);

	b.interval_us = 200000;
	b.multiplier = 3;
	CHECK_EQUAL(onvm_bfd_tx_us(&a), 30000);
	CHECK_EQUAL(onvm_bfd_detect_us(&a), 120000);
	CHECK(tell(&b, &a));
	CHECK(tell(&a, &b));
	CHECK_EQUAL(onvm_bfd_tx_us(&a), 200000);
	CHECK_EQUAL(onvm_bfd_detect_us(&a), 600000);
	CHECK_EQUAL(onvm_bfd_tx_us(&b), 200000);
	CHECK_EQUAL(onvm_bfd_detect_us(&b), 800000);
}

int
main(void)
{
	RUN(test_layout);
	RUN(test_both_come_up_and_stay);
	RUN(test_who_hears_nothing_tells_the_other);
	RUN(test_one_that_closes_is_down_at_once);
	RUN(test_one_that_starts_again_is_noticed);
	RUN(test_what_is_none_of_it_changes_nothing);
	RUN(test_one_that_names_no_session_takes_none_down);
	RUN(test_neither_end_gets_more_packets_than_it_wants);
	return 0;
}
