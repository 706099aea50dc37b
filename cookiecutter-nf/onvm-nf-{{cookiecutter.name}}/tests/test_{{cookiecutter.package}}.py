"""Send packets through the NF in this process, and check the verdicts."""

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from {{ cookiecutter.package }} import {{ cookiecutter.class_name }}
from onvm_sdk import Verdict
from onvm_sdk.testing import run


def ip(payload):
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(ttl=64) / payload


@pytest.mark.parametrize(
    ("packet", "verdict"),
    [
        (ip(UDP(dport=53)), Verdict.DROP),
        (ip(UDP(dport=54)), Verdict.NEXT),
        (ip(TCP(dport=53)), Verdict.NEXT),
        (Ether() / ARP(), Verdict.NEXT),
        (bytes(ip(UDP(dport=53)))[:30], Verdict.NEXT),
    ],
    ids=["blocked", "other-port", "tcp", "not-ip", "truncated"],
)
def test_verdict(packet, verdict):
    assert run({{ cookiecutter.class_name }}, [packet]).verdicts == [verdict]


def test_port_comes_from_the_configuration():
    result = run({{ cookiecutter.class_name }}, [ip(UDP(dport=53)), ip(UDP(dport=5353))], config={"port": 5353})
    assert result.verdicts == [Verdict.NEXT, Verdict.DROP]
    assert result.reasons == [None, "blocked"]


def test_hop_is_counted_and_checksum_kept():
    (packet,) = run({{ cookiecutter.class_name }}, [ip(TCP())]).packets
    header = Ether(packet)[IP]
    wanted = IP(bytes(header))
    del wanted.chksum
    assert header.ttl == 63
    assert header.chksum == IP(bytes(wanted)).chksum
