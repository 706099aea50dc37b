"""Scaling in a running manager: it carries out decisions of the autoscaler and of `onvm scale`."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from onvm_core.manager.api import messages as m
from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_core.scaling.autoscaler import Autoscaler, Decision, Scaled, ServiceState
from onvm_core.scaling.policy import ScalingPolicy
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Scaling"]

QUICK_INTERVAL_S = 0.02
"""Time between two readings while a service may soon need another instance, or has a standby."""
QUIET_INTERVAL_S = 0.05


class Scaling:
    """Counts, starts and drains instances.

    Args:
        configs: ``[scale.SERVICE]`` by service.
        policies: the policy objects, by service.
    """

    def __init__(
        self,
        deployment: Deployment,
        supervisor: Supervisor,
        configs: Mapping[str, ScaleConfig],
        policies: Mapping[str, ScalingPolicy],
    ) -> None:
        self._meters = deployment.manager.meters
        self._supervisor = supervisor
        self._configs = dict(configs)
        self._seen_s = 0.0
        self.is_paused = False
        """True while a change must not meet new instances."""
        self._autoscaler = Autoscaler(self)
        for service, config in configs.items():
            self._add(service, config, policies.get(service))

    def _add(self, service: str, config: ScaleConfig, policy: ScalingPolicy | None) -> None:
        self._autoscaler.services[service] = Scaled(
            config.settings(), policy, standby=config.standby, cooldown_s=config.cooldown_s
        )

    def change(
        self, configs: Mapping[str, ScaleConfig], policies: Mapping[str, ScalingPolicy]
    ) -> None:
        """Scale as another file says; the others go on as they are."""
        for service in self._configs.keys() - configs.keys():
            self._autoscaler.services.pop(service, None)
        for service, config in configs.items():
            if config != self._configs.get(service):
                self._add(service, config, policies.get(service))
        self._configs = dict(configs)

    def turn(self) -> None:
        """Act on a new reading, if there is one."""
        if self._meters.at_s == self._seen_s or not self._autoscaler.services or self.is_paused:
            return
        self._seen_s = self._meters.at_s
        states = {service: self._state(service) for service in self._autoscaler.services}
        self._autoscaler.turn(self._seen_s, states)
        is_watchful = self._autoscaler.is_watchful
        self._meters.interval_s = QUICK_INTERVAL_S if is_watchful else QUIET_INTERVAL_S

    def _state(self, service: str) -> ServiceState:
        loads = [self._meters.load(host, 0.0) for host in self._supervisor.serving(service)]
        return ServiceState(
            loads=tuple(load for load in loads if load is not None),
            **self._supervisor.count(service),
        )

    # ---- actions of the autoscaler ----

    def start(self, service: str, *, is_standby: bool) -> str:
        """Start an NF host like the existing ones, under new names."""
        example = self._supervisor.example(service)
        if example is None:
            raise OnvmError(f"no instance of {service} to start another like it")
        taken = self._supervisor.instance_names()
        bases = [name.rpartition("-")[0] or name for name in example.instances]
        number = 1
        while any(f"{base}-{number}" in taken for base in bases):
            number += 1
        names = tuple(f"{base}-{number}" for base in bases)
        self._supervisor.run(
            msgspec.structs.replace(
                example, instances=names, is_by_command=True, is_standby=is_standby
            )
        )
        return "+".join(names)

    def resume(self, service: str) -> str | None:
        """Send new flows to an instance that drains."""
        return self._supervisor.drains.resume(service)

    def activate(self, service: str) -> str | None:
        """Send new flows to an instance on standby."""
        return self._supervisor.activate(service)

    def drain(self, service: str) -> str | None:
        """Let an instance end with its flows."""
        config = self._configs.get(service) or ScaleConfig()
        return self._supervisor.drains.drain(service, config.drain_s, config.handover_ms / 1000)

    def stop_standby(self, service: str) -> str | None:
        """End an instance on standby."""
        return self._supervisor.stop_standby(service)

    # ---- requests ----

    def set_count(self, request: m.ScaleRequest) -> m.ScaleReply:
        """Have a fixed number of instances, or leave the number to the policy again."""
        service, count = request.service, request.instances
        state = self._state(service)
        config = self._configs.get(service)
        if count is None:
            if config is None:
                raise ConfigError(
                    f"expected a service with a policy; add [scale.{service}]",
                    field="scale",
                    value=service,
                )
            self._autoscaler.release(service)
            return m.ScaleReply()
        if self._supervisor.example(service) is None:
            raise ConfigError(
                f"expected a service with an instance; start one: onvm nf run {service}",
                field="scale",
                value=service,
            )
        if config is not None and not config.min <= count <= config.max:
            raise ConfigError(
                f"expected {config.min} to {config.max}, as [scale.{service}] says",
                field=f"scale {service}",
                value=count,
            )
        return m.ScaleReply(
            decision=self._autoscaler.command(service, count, time.monotonic(), state)
        )

    def decisions(self) -> list[Decision]:
        """The decisions, oldest first."""
        return list(self._autoscaler.decisions)

    def status(self, _request: m.ScaleStatusRequest) -> m.ScaleStatusReply:
        """Services that are scaled, and the history of decisions."""
        return m.ScaleStatusReply(
            services=[
                _show(service, scaled, self._state(service))
                for service, scaled in self._autoscaler.services.items()
            ],
            decisions=self.decisions(),
        )


def _show(service: str, scaled: Scaled, state: ServiceState) -> m.ScaledService:
    settings = scaled.settings
    last = scaled.history[-1] if scaled.history and scaled.history[-1].loads else None
    return m.ScaledService(
        service=service,
        mode="manual" if scaled.is_manual else "auto",
        min=settings.min,
        max=settings.max,
        target=settings.target,
        standby_wanted=scaled.standby,
        serving=state.serving,
        starting=state.starting,
        failing=state.failing,
        standby=state.standby,
        draining=state.draining,
        utilisation=None if last is None else round(last.utilisation, 3),
        demand=None if last is None else round(last.demand(settings.target), 3),
    )
