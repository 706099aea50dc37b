"""Port kinds: the options of their URIs, and the way from a URI to a port.

A kind over a DPDK driver gives `device`: a function from the URI's parts to the arguments of the
device. Options are fields of a struct, each declared once, with type, default, range and help::

    class RingOptions(DeviceOptions):
        size: Annotated[int, msgspec.Meta(ge=64, le=65536, description="Slots.")] = 1024
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from onvm_core.interfaces.use import InterfaceUse
from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import WORKERS_MAX
from onvm_sdk.spelling import one_of

__all__ = [
    "MTU",
    "QUEUES",
    "Device",
    "DeviceOptions",
    "Direction",
    "InterfaceUse",
    "PortKind",
    "PortOption",
    "PortOptions",
    "PortRequest",
]

Direction = Literal["in", "out", "both"]


class PortOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Base of the options of a kind; a URI with other options is refused."""


QUEUES = Annotated[
    int, msgspec.Meta(ge=1, le=WORKERS_MAX, description="Receive and transmit queues.")
]
MTU = Annotated[int, msgspec.Meta(ge=0, le=9600, description="MTU in bytes; 0: the device's own.")]


class DeviceOptions(PortOptions):
    """Options of all ports over devices."""

    queues: QUEUES = 1
    mtu: MTU = 0
    promiscuous: Annotated[
        bool, msgspec.Meta(description="Also receive packets for other addresses.")
    ] = True


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A port to open.

    Attributes:
        name: the user's name for the port.
        target: the part of the URI between the scheme and the options.
        options: the options, as the kind's struct.
        direction: packets come in, go out, or both.
    """

    name: str
    target: str
    options: Any
    direction: Direction


@dataclass(frozen=True, slots=True)
class Device:
    """A DPDK device and the abilities of the port over it.

    Attributes:
        arguments: arguments for the EAL, as in ``net_memif0,id=1``, or the address of a PCI
            device.
        needs_copy: the driver's packets cannot be received into packet memory and are copied.
        numa_node: NUMA node of the device; None if the device reports it, or has none.
    """

    arguments: str
    needs_copy: bool = False
    numa_node: int | None = None


@dataclass(frozen=True, slots=True)
class PortKind:
    """A port kind, named by the scheme of a port URI.

    Attributes:
        device: makes the device of a port; raises ConfigError for a wrong target.
        options: struct of the options.
        needs_pci: the environment must look for PCI devices.
        open: for built-in kinds that are no DPDK device: gets the data plane and the fields of a
            `PortRequest`, opens the port and returns its ID.
        interface: the way in which it uses the interface that its target names; None: its target
            is no interface of the kernel.
        check: raises ConfigError if a port cannot be opened here, as far as that is known before;
            gets target and options.
        files: the files that a port reads or writes, as (path, is written); gets target, options
            and direction, and raises ConfigError if they cannot be used. None: there are none.
    """

    device: Callable[[PortRequest], Device] | None = None
    options: type[PortOptions] = DeviceOptions
    needs_pci: bool = False
    open: Callable[..., int] | None = None
    interface: InterfaceUse | None = None
    check: Callable[[str, Any], None] | None = None
    files: Callable[..., list[tuple[str, bool]]] | None = None

    def fault(self) -> str:
        """The fault of the kind, as "expected …"; "" if there is none."""
        if self.open is None and not callable(self.device):
            return f"expected PortKind.device to be a function, got {self.device!r}"
        use: object = self.interface
        if use is not None and not isinstance(use, InterfaceUse):
            return f"expected PortKind.interface to be an InterfaceUse, got {use!r}"
        wanted = DeviceOptions if self.open is None else PortOptions
        options: object = self.options
        if not isinstance(options, type) or not issubclass(options, wanted):
            name = wanted.__name__
            return f"expected PortKind.options to be a subclass of {name}, got {options!r}"
        return ""

    def options_help(self) -> Iterator[PortOption]:
        """The options in order, for manuals and messages."""
        hints = get_type_hints(self.options, include_extras=True)
        for field in msgspec.structs.fields(self.options):
            metas = [one for one in getattr(hints[field.name], "__metadata__", ()) if _is_meta(one)]
            help_ = next((one.description for one in metas if one.description), "")
            yield PortOption(field.name, _expected(hints[field.name], metas), field.default, help_)

    def read_options(self, given: Mapping[str, str]) -> Any:
        """The struct with the options of a URI.

        Raises:
            ConfigError: an option is unknown or wrong; its field is the option's name.
        """
        try:
            return msgspec.convert(dict(given), self.options, strict=False)
        except msgspec.ValidationError as error:
            raise self._mistake(given, str(error)) from None

    def _mistake(self, given: Mapping[str, str], message: str) -> ConfigError:
        known = {option.name: option for option in self.options_help()}
        for name, value in given.items():
            if name not in known:
                what = one_of(known, name) if known else "no option"
                return ConfigError(f"expected {what}", field=name)
            if f"`$.{name}`" in message:
                return ConfigError(f"expected {known[name].expected}", field=name, value=value)
        missing = next((name for name in known if f"`{name}`" in message), None)
        return ConfigError("expected a value; there is no default", field=missing)


@dataclass(frozen=True, slots=True)
class PortOption:
    """An option for people: its name, its possible values, its default and its effect."""

    name: str
    expected: str
    default: Any
    help: str


def _is_meta(value: object) -> bool:
    return isinstance(value, msgspec.Meta)


def _expected(hint: Any, metas: list[msgspec.Meta]) -> str:
    base = getattr(hint, "__origin__", hint) if metas else hint
    choices = getattr(base, "__args__", None)
    if choices:
        return "one of " + ", ".join(repr(one).replace("'", "") or "nothing" for one in choices)
    low = next((one.ge for one in metas if one.ge is not None), None)
    high = next((one.le for one in metas if one.le is not None), None)
    name = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(
        base, str(base)
    )
    if low is not None and high is not None:
        return f"{name} from {low} to {high}"
    return f"{name} of at least {low}" if low is not None else name
