# SPDX-License-Identifier: Apache-2.0
"""What the router does, in plain Python: slow, short, the oracle of the C kernel.

Readings chosen:

* All packets of a burst arrive before the first one is forwarded; IPv4 is forwarded before IPv6.
* The TTL falls where a packet arrives, so that the error about it has the packet as its sender
  knows it, whatever NFs translate on the way. An error goes back to the MAC address from which
  the packet came (RFC 1812 4.3.2.4 asks for the route back, which is the same on a link).
* A neighbour is remembered if packets are to go to it, or if it asks for an address of ours and
  the table is not half full. An answer, or a new address, confirms it (RFC 4861 7.3.3 has more
  states). One that is in use and not confirmed for `reachable_s` is asked three times, a second
  apart, and used meanwhile.
* Packets to a neighbour that is asked for wait as copies, 512 each; the error comes when it is
  given up. After that it is not asked for a second.
* Half of the table of neighbours is for those that have not answered (RFC 6583).
* Errors have a bucket of a tenth of a second's.
* An address is used at once, and asked for at the same time: a router does not wait for the end of
  duplicate address detection, and defends what it has, once in ten seconds (RFC 5227 2.4 (c)).
* A VLAN tag goes where a packet arrives and comes where it leaves; a mere priority counts as none.
* Router advertisements go to all nodes, every 200 seconds and three times sooner at first. A
  solicitation brings the next one forward (RFC 4861 6.2.6), to three seconds after the last.
* The slow path of an interface gets what is for its addresses, but for echo requests; answers of
  neighbours, router discovery, and IP packets to the groups of a link and to all hosts.
* The reverse path of a packet counts the default route, too.

Merged and partial packets are the kernel's alone.
"""

from __future__ import annotations

from onvm_nf_router.model.packets import Arrived, Done
from onvm_nf_router.model.router import RouterModel

__all__ = ["Arrived", "Done", "RouterModel"]
