"""``[gateway]``: a router at both ends of the chains between some ports.

    [gateway]              ports, services; all other keys are settings of the router

It is short for tables that could be written out: a chain between the first two ports, a chain of
its own for each further port, and the settings of the router in ``[nfs.ROUTER.config]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from onvm_core.dataplane.limits import CHAIN_LENGTH_MAX
from onvm_core.manager.config.chains import ChainConfig, PortConfig, host_port
from onvm_core.manager.config.links import Link, check_next_hop
from onvm_core.manager.config.sections import nearest
from onvm_sdk.errors import ConfigError
from onvm_sdk.settings import explain

__all__ = ["GATEWAY", "Gateway", "check_routes", "check_slow_paths", "read_gateway"]

GATEWAY = "gateway"
"""The table, and the name of the chain between its first two ports."""


class Gateway(msgspec.Struct, frozen=True):
    """``[gateway]``, checked.

    Attributes:
        ports: the first two are the ends of the main chain.
        services: in the order in which a packet from the first port meets them; the router first.
        settings: what is left: the configuration of the router.
    """

    ports: Annotated[list[str], msgspec.Meta(min_length=2)]
    services: Annotated[list[str], msgspec.Meta(min_length=1, max_length=CHAIN_LENGTH_MAX - 1)]
    settings: dict[str, Any] = {}

    @property
    def router(self) -> str:
        """Name of the router."""
        return self.services[0]

    def host_ports(self, ports: Mapping[str, PortConfig]) -> dict[str, PortConfig]:
        """The ports that lead to the host, by name."""
        return {
            host_port(name): PortConfig(uri=port.slow_path)
            for name, port in ports.items()
            if port.slow_path
        }

    def chains(self, ports: Mapping[str, PortConfig]) -> dict[str, ChainConfig]:
        """The chains by name."""
        way = self.services if len(self.services) == 1 else [*self.services, self.router]
        near, far, *others = self.ports
        ends = {GATEWAY: (near, far), **{port: (port, port) for port in others}}
        chains = {
            name: ChainConfig(near=one, far=other, services=list(way))
            for name, (one, other) in ends.items()
        }
        for name in self.host_ports(ports):
            chains[name] = ChainConfig(near=name, far=name, services=[self.router])
        return chains


def check_slow_paths(gateway: Gateway | None, ports: Mapping[str, PortConfig], path: Path) -> None:
    """Check that each slow path is a tap beside a port of the gateway.

    Raises:
        ConfigError: one is not.
    """
    for name, port in ports.items():
        if not port.slow_path:
            continue
        field = f"ports.{name}.slow_path"
        if not port.slow_path.startswith("tap:"):
            expected = "expected tap:NAME"
            raise ConfigError(expected, file=path, field=field, value=port.slow_path)
        if gateway is None or name not in gateway.ports or not port.addresses:
            expected = f"expected a port with addresses among those of [{GATEWAY}]"
            raise ConfigError(expected, file=path, field=field, value=port.slow_path)
        if host_port(name) in ports:
            expected = f"expected another name; the slow path of {name} has it"
            raise ConfigError(expected, file=path, field="ports", value=host_port(name))


def read_gateway(
    table: object,
    path: Path,
    ports: Mapping[str, PortConfig],
    chains: Mapping[str, ChainConfig],
    services: Sequence[str],
) -> Gateway:
    """Check the table as far as it stands alone.

    Raises:
        ConfigError: it has a mistake.
    """
    if not isinstance(table, dict):
        raise ConfigError("expected a table", file=path, field=GATEWAY, value=table)
    own = {key: value for key, value in table.items() if key in ("ports", "services")}
    rest = {key: value for key, value in table.items() if key not in own}
    try:
        gateway = msgspec.convert({**own, "settings": rest}, Gateway)
    except msgspec.ValidationError as error:
        expected, field = explain(error, Gateway)
        place = f"{GATEWAY}.{field.lstrip('.')}" if field else GATEWAY
        value = own.get(field.lstrip(".").partition("[")[0])
        raise ConfigError(expected, file=path, field=place, value=value) from None
    for number, port in enumerate(gateway.ports):
        field = f"{GATEWAY}.ports[{number}]"
        if port not in ports:
            raise ConfigError(nearest(port, ports), file=path, field=field, value=port)
        if port in gateway.ports[:number]:
            raise ConfigError("expected each port once", file=path, field=field, value=port)
    for number, service in enumerate(gateway.services):
        if service not in services:
            field = f"{GATEWAY}.services[{number}]"
            raise ConfigError(nearest(service, services), file=path, field=field, value=service)
    for name in gateway.chains(ports):
        if name in chains:
            expected = f"expected another name; the chain {name} of [{GATEWAY}] has it"
            raise ConfigError(expected, file=path, field="chains", value=name)
    return gateway


def check_routes(gateway: Gateway, links: Mapping[str, Sequence[Link]], path: Path) -> None:
    """Check that each next hop of the routes is on a link.

    Whatever else is wrong with a route, the router says.

    Raises:
        ConfigError: a next hop is not.
    """
    routes = gateway.settings.get("routes")
    for number, route in enumerate(routes if isinstance(routes, list) else ()):
        if not isinstance(route, dict):
            continue
        via = route.get("via")
        field = f"{GATEWAY}.routes[{number}].via"
        for place, hop in enumerate(via if isinstance(via, list) else (via,)):
            if isinstance(hop, str):
                where = f"{field}[{place}]" if isinstance(via, list) else field
                check_next_hop(hop, str(route.get("interface", "")), links, path, where)
