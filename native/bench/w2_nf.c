/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The benchmark NF: work "w2" as a C kernel, in a process of its own.
 *
 *	onvm-bench-nf SOCKET SERVICE NB_STAGES BURST_SIZE CPU
 *
 * w2: parse Ethernet, IPv4 and UDP, look the destination port up in a set, drop it if found,
 * else lower the TTL and correct the checksum. Everything that is no such packet is dropped.
 * For little-endian hosts, as the wire between manager and NF host is.
 */

#include <arpa/inet.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "../nf/attach.h"
#include "../nf/host.h"

/** A bit for each port, by the port as it lies in memory: looked up without a swap. */
static uint64_t blocked[65536 / 64];
static struct onvm_nf_host *host;

static void
block(uint16_t port)
{
	const uint16_t in_memory = htons(port);

	blocked[in_memory / 64] |= 1ull << in_memory % 64;
}

static inline uint8_t
work(uint8_t *packet, uint32_t length)
{
	uint32_t l4, ttl_to_checksum, port;
	uint16_t type, port_in_memory;
	bool carry;

	if (length < 42)
		return ONVM_DROP;
	memcpy(&type, packet + 12, sizeof(type));
	if (type != htons(0x0800) || (packet[14] & 0xf0) != 0x40)
		return ONVM_DROP;
	memcpy(&ttl_to_checksum, packet + 22, sizeof(ttl_to_checksum));
	if ((ttl_to_checksum & 0xff00) != 17 << 8)
		return ONVM_DROP;
	l4 = 14 + (packet[14] & 15) * 4u;
	if (l4 + 8 > length)
		return ONVM_DROP;
	memcpy(&port_in_memory, packet + l4 + 2, sizeof(port_in_memory));
	port = port_in_memory;
	if (blocked[port / 64] >> port % 64 & 1)
		return ONVM_DROP;
	if ((ttl_to_checksum & 0xff) <= 1)
		return ONVM_DROP;
	/*
	 * One off the TTL, the lowest byte, and one onto the checksum, the upper half: the TTL is
	 * the high byte of its word in network order, so that the sum rises by 0x0100 (RFC 1624).
	 */
	carry = __builtin_add_overflow(ttl_to_checksum, 0xffffu, &ttl_to_checksum);
	ttl_to_checksum += (uint32_t)carry << 16;
	memcpy(packet + 22, &ttl_to_checksum, sizeof(ttl_to_checksum));
	return ONVM_NEXT;
}

static void
w2(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	(void)ctx;
	/* The runtime has prefetched what `data` points to. */
	for (uint32_t i = 0; i < nb_pkts; i++)
		pkts[i].verdict = work(pkts[i].data, pkts[i].length);
}

static void
interrupt(int number)
{
	(void)number;
	onvm_nf_host_interrupt(host);
}

/** Read all messages; most tell of ports, services and the like, which it does not need. */
static bool
has_to_leave(void)
{
	static uint8_t payload[ONVM_MESSAGE_MAX];
	struct onvm_message_header header;

	while (onvm_nf_host_receive(host, &header, payload) >= 0)
		if (header.type == ONVM_MSG_STOP || header.type == ONVM_MSG_DRAIN ||
		    header.type == ONVM_MSG_DETACH)
			return true;
	return false;
}

int
main(int argc, char **argv)
{
	static struct onvm_attach_hello hello;
	cpu_set_t cpus;
	int event;

	if (argc != 6) {
		fprintf(stderr, "usage: %s SOCKET SERVICE NB_STAGES BURST_SIZE CPU\n", argv[0]);
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&cpus);
	CPU_SET((size_t)atoi(argv[5]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0)
		perror("sched_setaffinity");
	block(9999);
	for (uint32_t i = 0; i < 64; i++)
		block((uint16_t)(20000 + i * 7));
	host = onvm_nf_host_create();
	if (host == NULL)
		return 1;
	hello.nb_stages = (uint32_t)atoi(argv[3]);
	hello.burst_size = (uint32_t)atoi(argv[4]);
	for (uint32_t i = 0; i < hello.nb_stages; i++) {
		onvm_nf_host_set_stage(host, i, w2, NULL);
		snprintf(hello.stage[i].service, ONVM_NAME_LENGTH,
			 hello.nb_stages == 1 ? "%s" : "%s%u", argv[2], i);
	}
	if (getenv("ONVM_ATTACH_SECRET") != NULL)
		snprintf(hello.secret, sizeof(hello.secret), "%s", getenv("ONVM_ATTACH_SECRET"));
	signal(SIGTERM, interrupt);
	if (onvm_nf_host_attach(host, argv[1], &hello, 5000) != 0) {
		fprintf(stderr, "%s\n", onvm_nf_host_error(host));
		return 1;
	}
	onvm_nf_host_ready(host);
	do {
		event = onvm_nf_host_run(host, 0);
		if (event == ONVM_EVENT_MESSAGE && has_to_leave())
			break;
	} while (event != ONVM_EVENT_INTERRUPT && event != ONVM_EVENT_DETACHED);
	onvm_nf_host_free(host);
	return 0;
}
