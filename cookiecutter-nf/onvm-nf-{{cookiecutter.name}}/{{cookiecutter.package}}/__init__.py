"""{{ cookiecutter.description | replace('\\', '\\\\') | replace('"', '\\"') }}"""
{% if cookiecutter.kind == "columns" %}
from onvm_sdk import Burst, Context, NetworkFunction

__all__ = ["{{ cookiecutter.class_name }}"]


class {{ cookiecutter.class_name }}(NetworkFunction):
    """Drop UDP to one port; count a hop on everything else."""

    def setup(self, ctx: Context) -> None:
        self.port: int = ctx.config["port"]
        self.blocked = ctx.reason("blocked")

    def process(self, burst: Burst) -> None:
        burst.drop(burst.is_udp & (burst.udp.dst_port == self.port), self.blocked)
        burst.ipv4.ttl -= 1
{%- elif cookiecutter.kind == "packets" %}
from onvm_sdk import Context, NetworkFunction, PacketView

__all__ = ["{{ cookiecutter.class_name }}"]


class {{ cookiecutter.class_name }}(NetworkFunction):
    """Drop UDP to one port; count a hop on everything else."""

    def setup(self, ctx: Context) -> None:
        self.port: int = ctx.config["port"]
        self.blocked = ctx.reason("blocked")

    def process_packet(self, pkt: PacketView) -> None:
        if pkt.is_udp and pkt.udp.dst_port == self.port:
            pkt.drop(self.blocked)
        pkt.ipv4.ttl -= 1
{%- elif cookiecutter.kind == "kernel" %}
from typing import Any

import numpy as np

from onvm_sdk import Context, NetworkFunction, kernel

__all__ = ["{{ cookiecutter.class_name }}"]


class {{ cookiecutter.class_name }}(NetworkFunction):
    """Drop UDP to one port; count a hop on everything else."""

    def setup(self, ctx: Context) -> None:
        self.state = np.array([ctx.config["port"], ctx.reason("blocked")], dtype=np.uint16)

    @kernel
    def process_packet(pkt: Any, state: Any) -> None:
        if pkt.is_udp and pkt.udp.dst_port == state[0]:
            pkt.drop(state[1])
        pkt.ipv4.ttl -= 1
{%- else %}
from onvm_sdk import Context, NativeKernel, NetworkFunction

__all__ = ["{{ cookiecutter.class_name }}"]


class {{ cookiecutter.class_name }}(NetworkFunction):
    """Drop UDP to one port; count a hop on everything else."""

    def setup(self, ctx: Context) -> None:
        from {{ cookiecutter.package }}.kernel import make_kernel

        self.kernel = make_kernel(ctx.config["port"], ctx.reason("blocked"))

    def native(self) -> NativeKernel:
        return self.kernel
{%- endif %}
