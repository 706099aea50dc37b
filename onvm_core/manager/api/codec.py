"""Messages of the control socket as bytes: JSON.

A request is ``{"version": 1, "request": {"type": …}}``; the reply has its own ``type``, or is
``{"type": "error"}`` with one line of text. Events are published under their ``type`` as topic.
"""

from __future__ import annotations

import msgspec

from onvm_core.manager.api.messages import Event, Reply, Request
from onvm_sdk.errors import OnvmError

__all__ = [
    "REQUEST_BYTES_MAX",
    "VERSION",
    "MessageError",
    "pack_reply",
    "pack_request",
    "unpack_event",
    "unpack_reply",
    "unpack_request",
]

VERSION = 1
REQUEST_BYTES_MAX = 1 << 22  # enough for a view of several thousand instances


class MessageError(OnvmError):
    """The bytes received are not a message of this version."""


class _Version(msgspec.Struct, frozen=True):
    version: int


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request: Request
    version: int = VERSION


_envelope = msgspec.json.Decoder(_Envelope)
_version = msgspec.json.Decoder(_Version)
_reply: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_encoder = msgspec.json.Encoder()


def pack_request(request: Request) -> bytes:
    """Write a request."""
    return _encoder.encode(_Envelope(request))


def unpack_request(data: bytes) -> Request:
    """Read a request.

    Raises:
        MessageError: it is not a request, or has another version.
    """
    if len(data) > REQUEST_BYTES_MAX:
        raise MessageError(f"request of {len(data)} bytes: expected at most {REQUEST_BYTES_MAX}")
    try:
        version = _version.decode(data).version
        if version != VERSION:
            raise MessageError(f"request of protocol version {version}: expected {VERSION}")
        return _envelope.decode(data).request
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(f"request: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise MessageError("request: nested too deeply") from None


def pack_reply(reply: Reply | Event) -> bytes:
    """Write a reply, or an event."""
    return _encoder.encode(reply)


def unpack_reply(data: bytes) -> Reply:
    """Read a reply.

    Raises:
        MessageError: it is not a reply.
    """
    try:
        return _reply.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(f"reply: {error}; is the manager of another version?") from None


def unpack_event(data: bytes) -> Event:
    """Read an event.

    Raises:
        MessageError: it is not an event.
    """
    try:
        return _event.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(f"event: {error}; is the manager of another version?") from None
