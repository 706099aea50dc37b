/* SPDX-License-Identifier: Apache-2.0 */

/*
 * An NF host that breaks the rules, over the wire protocol itself.
 *
 *	hostile_nf SOCKET SERVICE MODE
 *
 * Modes are the cases of main(); "behave" keeps the rules and returns every packet.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <onvm/ring.h>

#define BURST 64

struct peer {
	int socket;
	struct onvm_attach_reply reply;
	int fds[2 + ONVM_WORKERS_MAX];
	uint8_t *memory, *area;
	struct onvm_ring to_nf, from_nf, loan;
};

static const char *path, *service, *mode;
static uint64_t seed = 88172645463325252ull;

static uint32_t
any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16);
}

static bool
is_mode(const char *name)
{
	return strcmp(mode, name) == 0;
}

static int
open_socket(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	for (int i = 0; i < 2000; i++) {
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		usleep(1000);
	}
	exit(1);
}

static void
fill_hello(struct onvm_attach_hello *hello)
{
	memset(hello, 0, sizeof(*hello));
	hello->magic = ONVM_WIRE_MAGIC;
	hello->version = ONVM_WIRE_VERSION;
	hello->nb_stages = 1;
	hello->nb_loaned = strncmp(mode, "loan", 4) == 0 ? 32 : 0;
	hello->burst_size = BURST;
	hello->pid = (uint32_t)getpid();
	snprintf(hello->stage[0].service, ONVM_NAME_LENGTH, "%s", service);
}

/** Attach; false when the manager does not want us. */
static bool
attach(struct peer *peer)
{
	char control[CMSG_SPACE(sizeof(peer->fds))];
	struct iovec vector = {&peer->reply, sizeof(peer->reply)};
	struct msghdr message = {.msg_iov = &vector,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	static struct onvm_attach_hello hello;
	uint32_t length;

	peer->socket = open_socket();
	fill_hello(&hello);
	if (send(peer->socket, &hello, sizeof(hello), MSG_NOSIGNAL) < 0 ||
	    recvmsg(peer->socket, &message, MSG_CMSG_CLOEXEC) != sizeof(peer->reply) ||
	    peer->reply.status != 0)
		return false;
	memcpy(peer->fds, CMSG_DATA(CMSG_FIRSTHDR(&message)),
	       sizeof(int) * (2 + peer->reply.nb_workers));
	peer->memory = mmap(NULL, peer->reply.memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			    peer->fds[0], 0);
	peer->area = mmap(NULL, peer->reply.area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			  peer->fds[1], 0);
	if (peer->memory == MAP_FAILED || peer->area == MAP_FAILED)
		exit(1);
	length = peer->reply.ring_length;
	onvm_ring_init(&peer->to_nf, peer->area + onvm_ring_offset(length, 0, ONVM_RING_TO_NF),
		       length);
	onvm_ring_init(&peer->from_nf, peer->area + onvm_ring_offset(length, 0, ONVM_RING_FROM_NF),
		       length);
	onvm_ring_init(&peer->loan, peer->area + onvm_ring_offset(length, 0, ONVM_RING_LOAN),
		       length);
	return true;
}

static void
say(struct peer *peer, uint32_t type, const char *to, const void *payload, uint32_t length)
{
	static uint8_t message[sizeof(struct onvm_message_header) + ONVM_MESSAGE_MAX];
	struct onvm_message_header *header = (struct onvm_message_header *)message;

	memset(header, 0, sizeof(*header));
	header->type = type;
	header->length = length;
	snprintf(header->peer, sizeof(header->peer), "%s", to);
	if (length != 0)
		memcpy(message + sizeof(*header), payload, length);
	if (send(peer->socket, message, sizeof(*header) + length, MSG_NOSIGNAL) < 0)
		exit(0); /* thrown out */
}

static void
wake(struct peer *peer)
{
	const uint64_t one = 1;

	if (write(peer->fds[2], &one, sizeof(one)) < 0)
		return;
}

/** Change what goes back to the manager as the mode says. */
static uint32_t
spoil(struct peer *peer, struct onvm_desc *descs, uint32_t nb)
{
	for (uint32_t i = 0; i < nb; i++) {
		struct onvm_desc *desc = &descs[i];

		if (is_mode("forged"))
			desc->buffer = peer->reply.nb_buffers + any();
		else if (is_mode("foreign"))
			desc->buffer = any() % peer->reply.nb_buffers;
		else if (is_mode("offset"))
			desc->offset = (uint16_t)(peer->reply.buffer_stride - 1);
		else if (is_mode("length"))
			desc->length = 0xffff;
		else if (is_mode("empty"))
			desc->length = 0;
		else if (is_mode("verdict"))
			desc->verdict_stage = 9;
		else if (is_mode("stage"))
			desc->verdict_stage = 5 << 4;
		else if (is_mode("random"))
			for (uint32_t b = 0; b < sizeof(*desc); b++)
				((uint8_t *)desc)[b] = (uint8_t)any();
		else if (is_mode("reason"))
			desc->verdict_stage = ONVM_DROP, desc->port = (uint16_t)any();
		else if (is_mode("bad_port"))
			desc->verdict_stage = ONVM_OUT, desc->port = (uint16_t)(60 + any() % 5000);
		else if (is_mode("bad_service"))
			desc->verdict_stage = ONVM_TO_SERVICE, desc->port = (uint16_t)any();
		else if (is_mode("to_itself"))
			desc->verdict_stage = ONVM_TO_SERVICE,
			desc->port = peer->reply.service_id[0];
	}
	return nb;
}

static void
serve(struct peer *peer)
{
	struct onvm_desc descs[BURST * 2];

	for (uint64_t turn = 0;; turn++) {
		uint32_t nb = onvm_ring_dequeue_burst(&peer->to_nf, descs, BURST);

		if (is_mode("stale_head"))
			__atomic_store_n(&peer->to_nf.shared->head, 0, __ATOMIC_RELEASE);
		if (nb == 0) {
			usleep(200);
			if (is_mode("guess")) /* what may be on the way to us */
				for (; nb < BURST; nb++)
					descs[nb] = (struct onvm_desc){
						.buffer = any() % peer->reply.nb_buffers,
						.offset = 128,
						.length = 60,
						.port = peer->reply.service_id[0],
						.verdict_stage = ONVM_TO_SERVICE};
			if (nb == 0)
				continue;
		}
		nb = spoil(peer, descs, nb);
		if (is_mode("double")) {
			memcpy(descs + nb, descs, nb * sizeof(*descs));
			nb *= 2;
		}
		onvm_ring_enqueue_burst(&peer->from_nf, descs, nb);
		if (is_mode("tail"))
			__atomic_store_n(&peer->from_nf.shared->tail, any(), __ATOMIC_RELEASE);
		if (is_mode("head"))
			__atomic_store_n(&peer->to_nf.shared->head, any(), __ATOMIC_RELEASE);
		wake(peer);
	}
}

static void
scribble(struct peer *peer)
{
	for (;;) {
		for (uint32_t i = 0; i < 4096; i++) {
			peer->memory[(any() | (uint64_t)any() << 32) % peer->reply.memory_bytes] =
				(uint8_t)any();
			peer->area[any() % peer->reply.area_bytes] = (uint8_t)any();
		}
		wake(peer);
	}
}

/** Fill, empty and block the eventfds without end. */
static void
events(struct peer *peer)
{
	const uint64_t most = UINT64_MAX - 1;

	fcntl(peer->fds[2], F_SETFL, 0);
	if (fork() == 0) {
		uint64_t count;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			if (read(peer->fds[2], &count, sizeof(count)) < 0)
				exit(1);
	}
	for (int i = 0;; i++)
		if (write(peer->fds[2], i % 64 == 0 ? &most : &(uint64_t){1}, sizeof(most)) < 0)
			exit(1);
}

static void
talk(struct peer *peer)
{
	static uint8_t junk[ONVM_MESSAGE_MAX * 8];

	for (uint32_t i = 0; i < sizeof(junk); i++)
		junk[i] = (uint8_t)any();
	for (uint32_t turn = 0;; turn++) {
		const struct onvm_claim claim = {.ip_version = 4,
						 .first_port = turn % 60000,
						 .end_port = turn % 60000 + 1};

		if (is_mode("deaf"))
			say(peer, ONVM_MSG_USER, service, junk, 1000);
		else if (is_mode("claims"))
			say(peer, ONVM_MSG_CLAIM, "", &claim, sizeof(claim));
		else if (is_mode("type"))
			say(peer, 77, "", junk, 10);
		else if (is_mode("chatter"))
			say(peer, ONVM_MSG_USER, "", junk, ONVM_MESSAGE_MAX);
		else if (send(peer->socket, junk, is_mode("huge") ? sizeof(junk) : any() % 300 + 1,
			      MSG_NOSIGNAL) < 0)
			exit(0);
	}
}

/** Packets made in loaned buffers, and loans never given back. */
static void
loans(struct peer *peer)
{
	struct onvm_desc descs[BURST];

	for (;;) {
		const uint32_t nb = onvm_ring_dequeue_burst(&peer->loan, descs, BURST);

		for (uint32_t i = 0; i < nb; i++) {
			descs[i].length = 60;
			descs[i].verdict_stage = ONVM_OUT;
			descs[i].port = is_mode("loan_bad_port") ? 63 : 3;
			if (is_mode("loan_to_itself")) {
				descs[i].verdict_stage = ONVM_TO_SERVICE;
				descs[i].port = peer->reply.service_id[0];
			} else if (is_mode("loan_next")) {
				descs[i].verdict_stage = ONVM_NEXT;
			} else if (is_mode("loan_empty")) {
				descs[i].length = 0;
			}
		}
		if (!is_mode("loan_keep"))
			onvm_ring_enqueue_burst(&peer->from_nf, descs, nb);
		if (is_mode("loan_head"))
			__atomic_store_n(&peer->loan.shared->head, any(), __ATOMIC_RELEASE);
		wake(peer);
		usleep(200);
	}
}

static void
knock(void)
{
	static struct onvm_attach_hello hello;
	static struct peer peers[1000];

	for (uint32_t i = 0; i < 1000; i++) {
		fill_hello(&hello);
		if (is_mode("attach_1000")) {
			if (!attach(&peers[i]))
				close(peers[i].socket);
			continue;
		}
		peers[i].socket = open_socket();
		if (is_mode("half")) {
			send(peers[i].socket, &hello, sizeof(hello) / 2, MSG_NOSIGNAL);
		} else if (is_mode("garbage")) {
			for (uint32_t b = i % 3 == 0 ? 0 : 8; b < sizeof(hello); b++)
				((uint8_t *)&hello)[b] = (uint8_t)any();
			if (i % 3 == 2)
				hello.nb_stages = 1 + any() % 16;
			send(peers[i].socket, &hello, sizeof(hello), MSG_NOSIGNAL);
		}
		if (!is_mode("silent"))
			close(peers[i].socket);
	}
	pause();
}

int
main(int argc, char **argv)
{
	static struct peer peer;

	if (argc != 4)
		return 2;
	path = argv[1];
	service = argv[2];
	mode = argv[3];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	if (is_mode("connect") || is_mode("silent") || is_mode("half") || is_mode("garbage") ||
	    is_mode("attach_1000"))
		knock();
	if (!attach(&peer))
		return 1;
	say(&peer, ONVM_MSG_READY, "", NULL, 0);
	if (is_mode("keep"))
		pause();
	else if (is_mode("scribble"))
		scribble(&peer);
	else if (is_mode("events"))
		events(&peer);
	else if (strncmp(mode, "loan", 4) == 0)
		loans(&peer);
	else if (is_mode("deaf") || is_mode("claims") || is_mode("type") || is_mode("chatter") ||
		 is_mode("huge") || is_mode("babble"))
		talk(&peer);
	else
		serve(&peer);
	return 0;
}
