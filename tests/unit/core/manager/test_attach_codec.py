"""Whatever an NF host sends: a value, or a `WireError` with a line for it."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from onvm_core.manager.nf_hosts import codec

words = st.integers(0, 0xFFFFFFFF)
names = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.text("abc-09", max_size=31).map(lambda text: text.encode().ljust(32, b"\0")),
)


def hello(n_stages: int, head: tuple[int, int, int], secret: bytes, name: bytes) -> bytes:
    stage = (name + name).ljust(1092, b"\0")
    start = struct.pack("=7I", codec.MAGIC, codec.VERSION, n_stages, *head, 1) + secret.ljust(
        64, b"\0"
    )
    return (start + stage * min(n_stages, 16)).ljust(codec.HELLO_BYTES, b"\0")


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    for read in (codec.unpack_hello, codec.unpack_message, codec.unpack_claim):
        with contextlib.suppress(codec.WireError):
            read(data)


@given(st.integers(0, 20), st.tuples(words, words, words), st.binary(max_size=64), names)
def test_hello_of_the_right_size(n_stages, head, secret, name) -> None:
    try:
        found = codec.unpack_hello(hello(n_stages, head, secret, name))
    except codec.WireError as error:
        assert str(error).isprintable()
        return
    assert 1 <= len(found.stages) <= codec.STAGES_MAX
    assert all(stage.service.isprintable() and stage.service for stage in found.stages)


@given(st.integers(0, codec.HELLO_BYTES))
def test_cut_hello_is_refused(length: int) -> None:
    whole = hello(1, (0, 64, 1), b"", b"nat".ljust(32, b"\0"))
    try:
        codec.unpack_hello(whole[:length])
    except codec.WireError:
        assert length < codec.HELLO_BYTES
    else:
        assert length == codec.HELLO_BYTES


@given(words, words, words, names, st.binary(max_size=300))
def test_message(kind, length, stage, peer, payload) -> None:
    try:
        found = codec.unpack_message(struct.pack("=III32s", kind, length, stage, peer) + payload)
    except codec.WireError:
        return
    assert found.payload == payload


@given(st.sampled_from(range(1, 8)), st.integers(0, 15), st.text("ab", max_size=31), st.binary())
def test_message_round_trip(kind, stage, peer, payload) -> None:
    found = codec.unpack_message(codec.pack_message(kind, stage=stage, peer=peer, payload=payload))
    assert (found.kind, found.stage, found.peer, found.payload) == (kind, stage, peer, payload)


@given(st.binary(min_size=28, max_size=28))
def test_claim(payload: bytes) -> None:
    try:
        claim = codec.unpack_claim(payload)
    except codec.WireError:
        return
    assert len(claim.address) in (4, 16)
    assert 0 <= claim.first_port < claim.end_port <= 65536


@given(st.integers(1, 200), st.text(max_size=600))
def test_refusal_fits_its_place(number: int, reason: str) -> None:
    assert len(codec.pack_refusal(number, reason)) == codec._REPLY.size
