# SPDX-License-Identifier: Apache-2.0
"""What the NAT does, in plain Python: slow, short, the oracle of the C kernel.

Readings chosen:

* A mapping is endpoint-independent (RFC 4787 REQ-1) and lives as long as one of its sessions; a
  session is a mapping and one remote endpoint, opened by any outbound packet (RFC 5382 leaves a
  segment without SYN to the NAT). The VLANs of a packet belong to its inside endpoint.
* An inside address has one external address, by a hash (paired pooling, RFC 4787 REQ-2).
* The external port is the next free one behind a place that a keyed hash of the inside endpoint
  gives, of the same parity while there is one, and below 1024 if and only if the inside port is,
  while there is one. A freed port rests (RFC 6888 REQ-8).
* Outbound packets refresh a session; inbound ones only for TCP, or when configured.
* ICMP queries go out and their replies come in; nothing else of them.
* Fragments behind the first one follow it, if it came before them less than 30 seconds ago.
* An ICMP error needs a session (inbound) or a mapping (outbound) and changes no timer.
* Without room for a session, the one idle for longest gives way: closed TCP first, then TCP that is
  opening, ICMP, UDP that was not answered, and what an inside address has beyond half of the table.
* Checksums are computed whole here where the kernel updates them; on correct packets both agree.
"""

from __future__ import annotations

from onvm_nf_nat.model.nat import NatModel, Translated
from onvm_nf_nat.model.reading import Drop
from onvm_nf_nat.model.siphash import siphash

__all__ = ["Drop", "NatModel", "Translated", "siphash"]
