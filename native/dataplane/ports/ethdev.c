/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ports over DPDK drivers: NICs, af_packet, af_xdp, tap, memif.
 */

#include "ports/kinds.h"

#include "ports/memif_guard.h"
#include "ports/xdp_sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/libbpf.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <xdp/libxdp.h>

#define NB_DESCRIPTORS 512
#define COPY_POOL_BUFFERS 8192
#define RX_MAX 64

struct ethdev_port {
	uint16_t ethdev;
	struct rte_mempool *copy_pool; /**< of drivers that cannot use split memory, or NULL */
	struct onvm_xdp_sockets xdp;   /**< of the af_xdp driver; none with others */
	bool is_mapped;		       /**< the device reaches packet memory by DMA */
	bool was_bound; /**< a card that is gone, as last seen: to a driver of DPDK's */
	struct onvm_ethdev_options options; /**< `device` is ours */
	uint32_t nb_workers;
	struct onvm_memif_guard *guards[ONVM_WORKERS_MAX]; /**< by queue; NULL: needs none */
	char device[256];
	char fault[160]; /**< why it cannot be opened, where that takes numbers */
};

/** Copy received packets into packet memory. */
static uint16_t
copy_in(struct onvm_port *port, uint16_t queue, struct rte_mbuf **from, uint16_t nb,
	struct rte_mbuf **mbufs, struct onvm_rx_result *result)
{
	const uint32_t room = port->memory->stride - RTE_PKTMBUF_HEADROOM;
	uint16_t nb_copied = 0;

	for (uint16_t i = 0; i < nb; i++) {
		const uint32_t length = from[i]->pkt_len;
		struct rte_mbuf *mbuf = NULL;

		if (length <= room && from[i]->nb_segs == 1)
			mbuf = rte_pktmbuf_alloc(port->pools[queue]);
		if (mbuf == NULL) {
			result->nb_oversize++;
		} else {
			memcpy(rte_pktmbuf_mtod(mbuf, void *), rte_pktmbuf_mtod(from[i], void *),
			       length);
			mbuf->data_len = (uint16_t)length;
			mbuf->pkt_len = length;
			mbufs[nb_copied++] = mbuf;
		}
	}
	rte_pktmbuf_free_bulk(from, nb);
	return nb_copied;
}

static uint16_t
rx_guarded(const struct ethdev_port *own, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	uint16_t nb_rx;

	onvm_memif_guard_lock(own->guards[queue]);
	nb_rx = rte_eth_rx_burst(own->ethdev, queue, mbufs, nb);
	onvm_memif_guard_unlock(own->guards[queue]);
	return nb_rx;
}

static uint16_t
tx_guarded(const struct ethdev_port *own, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	uint16_t nb_tx;

	onvm_memif_guard_lock(own->guards[queue]);
	nb_tx = rte_eth_tx_burst(own->ethdev, queue, mbufs, nb);
	onvm_memif_guard_unlock(own->guards[queue]);
	return nb_tx;
}

static uint16_t
ethdev_rx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb,
	  struct onvm_rx_result *result)
{
	const struct ethdev_port *own = port->priv;
	uint16_t nb_rx, nb_kept = 0;

	if (unlikely(__atomic_load_n(&port->is_gone, __ATOMIC_RELAXED)))
		return 0;
	if (own->copy_pool != NULL) {
		struct rte_mbuf *from[RX_MAX];

		nb_rx = rx_guarded(own, queue, from, RTE_MIN(nb, RX_MAX));
		return copy_in(port, queue, from, nb_rx, mbufs, result);
	}
	nb_rx = rx_guarded(own, queue, mbufs, nb);
	for (uint16_t i = 0; i < nb_rx; i++) {
		/* A packet in several buffers is larger than one: NFs see whole packets. */
		if (unlikely(mbufs[i]->nb_segs != 1)) {
			result->nb_oversize++;
			rte_pktmbuf_free(mbufs[i]);
		} else {
			mbufs[nb_kept++] = mbufs[i];
		}
	}
	return nb_kept;
}

static uint16_t
ethdev_tx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct ethdev_port *own = port->priv;
	uint16_t nb_tx;

	if (unlikely(__atomic_load_n(&port->is_gone, __ATOMIC_RELAXED)))
		return 0;
	nb_tx = tx_guarded(own, queue, mbufs, nb);
	/* Virtual devices fill up for microseconds; a short second look saves a retransmission. */
	for (int turn = 0; nb_tx < nb && turn < 8; turn++) {
		rte_pause();
		nb_tx = (uint16_t)(nb_tx +
				   tx_guarded(own, queue, mbufs + nb_tx, (uint16_t)(nb - nb_tx)));
	}
	return nb_tx;
}

/** Whether it is a network card, and no device that exists in software only. */
static bool
is_card(const struct rte_eth_dev_info *info)
{
	return info->device != NULL && strcmp(rte_bus_name(rte_dev_bus(info->device)), "pci") == 0;
}

/** The kernel wants a card back, and waits until we let go of it. In a thread of the environment. */
static void
on_device_event(const char *name, enum rte_dev_event_type event, void *arg)
{
	struct onvm_port *port = arg;

	RTE_SET_USED(name);
	/* Pairs with the acquire load in onvm_ports_release(). */
	if (event == RTE_DEV_EVENT_REMOVE)
		__atomic_store_n(&port->is_gone, 1, __ATOMIC_RELEASE);
}

static void
ethdev_release(struct onvm_port *port)
{
	struct ethdev_port *own = port->priv;
	struct rte_eth_dev_info info;

	if (own->ethdev == RTE_MAX_ETHPORTS)
		return;
	rte_eth_dev_stop(own->ethdev);
	if (rte_eth_dev_info_get(own->ethdev, &info) == 0 && info.device != NULL) {
		if (own->is_mapped)
			onvm_packet_memory_unmap(port->memory, info.device);
		if (is_card(&info))
			(void)rte_dev_event_callback_unregister(rte_dev_name(info.device),
								on_device_event, port);
		rte_dev_remove(info.device);
	} else {
		rte_eth_dev_close(own->ethdev);
	}
	own->is_mapped = false;
	own->ethdev = RTE_MAX_ETHPORTS;
}

static void
ethdev_read(struct onvm_port *port, struct onvm_port_losses *losses, bool *is_down)
{
	const struct ethdev_port *own = port->priv;
	struct rte_eth_dev_info info;
	struct rte_eth_stats counted;
	struct rte_eth_link link;

	if (own->ethdev == RTE_MAX_ETHPORTS) {
		*losses = port->losses;
		return;
	}
	if (rte_eth_stats_get(own->ethdev, &counted) == 0) {
		losses->nb_missed = counted.imissed + onvm_xdp_sockets_missed(&own->xdp);
		losses->nb_no_buffer = counted.rx_nombuf;
		losses->nb_rx_errors = counted.ierrors;
		/* Drivers of other devices count what they have not taken. */
		if (rte_eth_dev_info_get(own->ethdev, &info) == 0 && is_card(&info))
			losses->nb_refused = counted.oerrors;
	}
	if (rte_eth_link_get_nowait(own->ethdev, &link) == 0)
		*is_down = link.link_status == RTE_ETH_LINK_DOWN;
}

static void
ethdev_close(struct onvm_port *port)
{
	struct ethdev_port *own = port->priv;

	ethdev_release(port);
	rte_mempool_free(own->copy_pool);
	free(own);
}

/** Ask for RSS over the fields that the device can hash. */
static void
configure_rss(struct rte_eth_conf *conf, const struct rte_eth_dev_info *info, uint32_t nb_queues)
{
	if (nb_queues < 2 || info->flow_type_rss_offloads == 0)
		return;
	conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	conf->rx_adv_conf.rss_conf.rss_hf =
		info->flow_type_rss_offloads &
		(RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP);
}

/** Let a card reach packet memory; otherwise no packet would ever arrive or leave. */
static int
map_memory(struct onvm_port *port, struct ethdev_port *own, const struct rte_eth_dev_info *info,
	   const char **step)
{
	int rc;

	if (!is_card(info) || own->copy_pool != NULL)
		return 0;
	rc = onvm_packet_memory_map(port->memory, info->device);
	own->is_mapped = rc == 0;
	(void)rte_dev_event_callback_register(rte_dev_name(info->device), on_device_event, port);
	if (rc == -ENOTSUP)
		*step = "packet memory must be huge pages where there is no IOMMU; run: "
			"echo 512 | sudo tee /proc/sys/vm/nr_hugepages";
	else if (rc == -ERANGE)
		*step = "the card's IOMMU cannot be given packet memory, which lies above 2^39";
	else if (rc != 0)
		*step = "packet memory cannot be locked for the card; run: "
			"sudo prlimit --pid $$ --memlock=unlimited";
	return rc;
}

/** The largest frame that @p driver receives into one buffer of @p room bytes. */
static uint32_t
frame_of(const char *driver, uint32_t room)
{
	/* Cards are told the size of buffers in steps: these in powers of two, others in KiB. */
	if (strcmp(driver, "net_e1000_em") == 0)
		return RTE_MIN(1u << (31 - __builtin_clz(room)), 16384u);
	return room / 1024 * 1024;
}

/** Refuse an MTU whose frames would come in pieces: NFs see whole packets. */
static int
check_buffers(const struct onvm_port *port, struct ethdev_port *own,
	      const struct rte_eth_dev_info *info, uint32_t mtu, const char **step)
{
	const uint32_t frame = mtu + RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN +
			       2 * sizeof(struct rte_vlan_hdr);
	const uint32_t room = port->memory->stride - RTE_PKTMBUF_HEADROOM;
	uint32_t wanted = 1024;

	if (!is_card(info) || own->copy_pool != NULL || frame_of(info->driver_name, room) >= frame)
		return 0;
	while (wanted <= UINT16_MAX && frame_of(info->driver_name, wanted) < frame)
		wanted += 1024;
	if (wanted <= UINT16_MAX)
		snprintf(own->fault, sizeof(own->fault),
			 "mtu %u: expected buffers for whole packets, set buffer_size = %u in "
			 "[dataplane]",
			 mtu, wanted);
	else
		snprintf(own->fault, sizeof(own->fault),
			 "mtu %u: expected an MTU whose packets fit into one buffer of %s", mtu,
			 info->driver_name);
	*step = own->fault;
	return -EINVAL;
}

/** Socket of the device, or of the NIC behind a virtual one; below 0: none, or unknown. */
static int
node_of(const struct ethdev_port *own, const struct onvm_ethdev_options *options,
	const struct rte_eth_dev_info *info)
{
	/* Virtual devices say where the thread was that made them. */
	if (info->device == NULL || strcmp(rte_bus_name(rte_dev_bus(info->device)), "vdev") == 0)
		return options->node;
	return rte_eth_dev_socket_id(own->ethdev);
}

static int
start_device(struct onvm_port *port, struct ethdev_port *own,
	     const struct onvm_ethdev_options *options, uint32_t nb_workers, const char **step)
{
	int node;
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	uint16_t nb_rx_desc = NB_DESCRIPTORS, nb_tx_desc = NB_DESCRIPTORS;
	uint32_t nb_rx = options->nb_queues == 0 ? 1 : options->nb_queues;
	int rc;

	memset(&conf, 0, sizeof(conf));
	*step = "device information:";
	rc = rte_eth_dev_info_get(own->ethdev, &info);
	if (rc != 0)
		return rc;
	rc = map_memory(port, own, &info, step);
	if (rc != 0)
		return rc;
	for (uint16_t q = 0; q < RTE_DIM(own->guards); q++)
		own->guards[q] = onvm_memif_guard_of(&info, own->ethdev, q);
	node = node_of(own, options, &info);
	for (uint32_t q = 0; q < RTE_DIM(port->pools) && node >= 0; q++)
		port->pools[q] = onvm_packet_pool(port->memory, (uint32_t)node);
	*step = "queues: the device has fewer than workers and queues need";
	if (nb_rx > info.max_rx_queues || nb_workers > info.max_tx_queues)
		return -EINVAL;
	configure_rss(&conf, &info, nb_rx);
	*step = "mtu: larger than the frames of this driver";
	if (options->mtu + RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN > info.max_rx_pktlen)
		return -EINVAL;
	rc = check_buffers(port, own, &info, options->mtu == 0 ? RTE_ETHER_MTU : options->mtu,
			   step);
	if (rc != 0)
		return rc;
	if (options->mtu != 0)
		conf.rxmode.mtu = options->mtu;
	*step = "configuration:";
	rc = rte_eth_dev_configure(own->ethdev, (uint16_t)nb_rx, (uint16_t)nb_workers, &conf);
	if (rc != 0)
		return rc;
	if (options->mtu != 0) {
		*step = "mtu:";
		rc = rte_eth_dev_set_mtu(own->ethdev, (uint16_t)options->mtu);
		if (rc != 0 && rc != -ENOTSUP)
			return rc;
	}
	*step = "queue set-up:";
	rc = rte_eth_dev_adjust_nb_rx_tx_desc(own->ethdev, &nb_rx_desc, &nb_tx_desc);
	for (uint32_t queue = 0; queue < nb_rx && rc == 0; queue++)
		rc = rte_eth_rx_queue_setup(own->ethdev, (uint16_t)queue, nb_rx_desc,
					    (unsigned int)(node < 0 ? 0 : node), NULL,
					    own->copy_pool != NULL ? own->copy_pool :
								     port->pools[queue]);
	for (uint32_t queue = 0; queue < nb_workers && rc == 0; queue++)
		rc = rte_eth_tx_queue_setup(own->ethdev, (uint16_t)queue, nb_tx_desc,
					    (unsigned int)(node < 0 ? 0 : node), NULL);
	if (rc == -ENOMEM)
		*step = "queue set-up: its frames need a larger buffer_size, or there is no memory";
	if (rc != 0)
		return rc;
	*step = "start:";
	rc = rte_eth_dev_start(own->ethdev);
	if (rc == 0 && options->is_promiscuous)
		(void)rte_eth_promiscuous_enable(own->ethdev); /* not every driver has it */
	port->nb_queues = (uint16_t)nb_rx;
	return rc;
}

/** Find or make the device, and reserve it: the environment may have probed it at its start. */
static int
find_device(struct onvm_port *port, struct ethdev_port *own, const char *device, const char **step)
{
	struct rte_eth_dev_owner owner = {.id = RTE_ETH_DEV_NO_OWNER};
	char name[64];
	uint16_t found;
	int rc;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(device, ","), device);
	if (rte_eth_dev_get_port_by_name(name, &found) != 0) {
		rc = rte_dev_probe(device);
		if (rc != 0 && rc != -EEXIST)
			return rc;
		if (rte_eth_dev_get_port_by_name(name, &found) != 0)
			return -ENODEV;
	}
	snprintf(owner.name, sizeof(owner.name), "%s", port->name);
	rc = rte_eth_dev_owner_new(&owner.id);
	if (rc == 0)
		rc = rte_eth_dev_owner_set(found, &owner);
	if (rc == -EPERM) {
		*step = "this device is a port already";
		return -EBUSY;
	}
	if (rc == 0)
		own->ethdev = found;
	return rc;
}

/** Whether a card is bound to a driver through which DPDK can have it. */
static bool
is_bound(const char *device)
{
	static const char *const drivers[] = {"vfio-pci", "uio_pci_generic", "igb_uio"};
	char path[320], target[256];
	const char *driver;
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.*s/driver", (int)strcspn(device, ","),
		 device);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		return false;
	target[length] = '\0';
	driver = strrchr(target, '/') == NULL ? target : strrchr(target, '/') + 1;
	for (size_t i = 0; i < RTE_DIM(drivers); i++)
		if (strcmp(driver, drivers[i]) == 0)
			return true;
	return false;
}

static bool
ethdev_revive(struct onvm_port *port)
{
	struct ethdev_port *own = port->priv;
	const char *step = "";
	bool was_bound;

	if (!port->is_released)
		return false;
	/* Once for each time that it is bound: a card that cannot be had says so in the log. */
	was_bound = own->was_bound;
	own->was_bound = is_bound(own->device);
	if (was_bound || !own->was_bound)
		return false;
	if (find_device(port, own, own->device, &step) != 0 ||
	    start_device(port, own, &own->options, own->nb_workers, &step) != 0) {
		ethdev_release(port);
		return false;
	}
	/* Pairs with the acquire load in onvm_ports_release(). */
	__atomic_store_n(&port->is_gone, 0, __ATOMIC_RELEASE);
	return true;
}

static const struct onvm_port_ops ethdev_ops = {
	.rx_burst = ethdev_rx,
	.tx_burst = ethdev_tx,
	.read = ethdev_read,
	.revive = ethdev_revive,
	.release = ethdev_release,
	.close = ethdev_close,
};

int
onvm_port_ethdev_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		      char *error, size_t error_size)
{
	const struct onvm_ethdev_options *options = kind_options;
	struct ethdev_port *own = calloc(1, sizeof(*own));
	struct onvm_xdp_fds before;
	const char *step = "probe:"; /* the system's own words follow a colon */
	char name[64];
	int rc;

	if (own == NULL)
		return -ENOMEM;
	own->ethdev = RTE_MAX_ETHPORTS;
	own->options = *options;
	snprintf(own->device, sizeof(own->device), "%s", options->device);
	own->options.device = own->device;
	own->nb_workers = nb_workers;
	/* Their chatter about kernel features would end up between the user's tables. */
	libbpf_set_print(NULL);
	libxdp_set_print(NULL);
	rc = find_device(port, own, options->device, &step);
	if (rc == 0 && options->needs_copy) {
		step = "receive pool:";
		snprintf(name, sizeof(name), "onvm-rx-%u", port->id);
		own->copy_pool = rte_pktmbuf_pool_create(name, COPY_POOL_BUFFERS, 256, 0,
							 RTE_MBUF_DEFAULT_BUF_SIZE,
							 (int)rte_socket_id());
		rc = own->copy_pool == NULL ? -rte_errno : 0;
	}
	onvm_xdp_fds_find(&before);
	if (rc == 0)
		rc = start_device(port, own, options, nb_workers, &step);
	if (rc == 0)
		onvm_xdp_sockets_init(&own->xdp, &before);
	if (rc != 0) {
		snprintf(error, error_size, step[strlen(step) - 1] == ':' ? "%s %s" : "%s", step,
			 strerror(-rc));
		port->priv = own;
		ethdev_close(port);
		port->priv = NULL;
		return rc;
	}
	port->ops = &ethdev_ops;
	port->priv = own;
	port->can_wait = false;
	port->is_polled = true;
	return 0;
}
