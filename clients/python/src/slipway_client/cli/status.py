"""`slipway status`: both services at a glance."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import typer
from rich.text import Text
from slipway.common.v1.task_pb2 import Task
from slipway.registry.v1.snapshot_pb2 import CacheUsage
from slipway.runner.v1.runner_pb2 import BackendInfo, Device
from slipway.runner.v1.runner_pb2 import Runner as RunnerInfo

from slipway_client.cli import format as fmt
from slipway_client.cli.output import Output, as_dict
from slipway_client.cli.session import Session, session
from slipway_client.errors import SlipwayError
from slipway_client.words import word

DEADLINE = 5.0
"""Seconds for each answer: who asks for a status wants to know what does not answer."""


@dataclass
class Service:
    """What a service has said of itself."""

    name: str
    address: str
    health: str = ""
    cache: CacheUsage | None = None
    runner: RunnerInfo | None = None
    error: SlipwayError | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        said: dict[str, Any] = {"service": self.name, "address": self.address, "health": self.health or "UNREACHABLE"}
        if self.cache is not None:
            said["cache"] = as_dict(self.cache)
        if self.runner is not None:
            said["runner"] = as_dict(self.runner)
        return said


@dataclass
class Both:
    """The two of them."""

    registry: Service
    runner: Service
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def status(context: typer.Context) -> None:
    """Show registry and runner: health, cache, devices, backends."""
    current = session(context)
    both = Both(Service("registry", current.settings.registry), Service("runner", current.settings.runner))

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_ask_registry, current, both.registry)
            tasks.start_soon(_ask_runner, current, both.runner)

    current.run(work)
    if current.as_json:
        for service in (both.registry, both.runner):
            current.output.json(service.as_dict())
    else:
        _show(current.output, both)
    error = both.registry.error or both.runner.error
    if error is not None:
        raise current.explained(error)


async def _ask_registry(current: Session, service: Service) -> None:
    try:
        async with current.registry() as registry:
            service.health = await registry.health(timeout=DEADLINE)
            service.cache = await registry.get_cache_usage(timeout=DEADLINE)
    except SlipwayError as error:
        if error.reason != "NOT_IMPLEMENTED":
            service.error = error


async def _ask_runner(current: Session, service: Service) -> None:
    try:
        async with current.runner() as runner:
            service.health = await runner.health(timeout=DEADLINE)
            service.runner = await runner.get_runner(timeout=DEADLINE)
    except SlipwayError as error:
        service.error = error


def _show(out: Output, both: Both) -> None:
    for service in (both.registry, both.runner):
        word_, colour = ("serving", "green") if service.health == "SERVING" else (_not_serving(service), "red")
        out.line((f"{service.name:<9}", "bold"), f"{service.address}  ", (word_, colour))
        if service.cache is not None:
            out.line("         ", _cache(service.cache))
        if service.runner is not None:
            _show_runner(out, service.runner, both.now)


def _not_serving(service: Service) -> str:
    return service.health.lower().replace("_", " ") or "does not answer"


def _cache(usage: CacheUsage) -> str:
    return (
        f"cache {fmt.size(usage.snapshot_bytes)} in {fmt.plural(usage.snapshot_count, 'snapshot')}, "
        f"{fmt.size(usage.disk_free_bytes)} free of {fmt.size(usage.disk_total_bytes)}"
    )


def _show_runner(out: Output, runner: RunnerInfo, now: datetime) -> None:
    facts = [runner.host, runner.version]
    if runner.HasField("start_time"):
        facts.append(f"up {fmt.seconds((now - runner.start_time.ToDatetime(UTC)).total_seconds())}")
    facts.append(f"{runner.loaded_count} of {fmt.plural(runner.model_count, 'model')} loaded")
    if runner.draining:
        facts.append("draining")
    out.line("         ", " · ".join(filter(None, facts)))
    out.line("         ", f"gateway {runner.gateway or 'off'}")
    if runner.registry and not runner.registry_reachable:
        out.line("         ", (f"it does not reach its registry {runner.registry}", "yellow"))
    out.line()
    out.table(
        ("DEVICE", "FREE", "OF", "BUSY", "ID"), (_device(device) for device in runner.devices), right=("FREE", "OF")
    )
    out.line()
    out.table(("BACKEND", "VERSION", "SERVES", ""), (_backend(backend) for backend in runner.backends))


def _device(device: Device) -> tuple[str | Text, ...]:
    return (
        device.display_name or device.memory.device_id,
        Text(device.fault, style="red") if device.fault else fmt.size(device.memory.free_bytes),
        fmt.size(device.memory.total_bytes),
        f"{device.utilization:.0%}" if device.HasField("utilization") else "",
        Text(device.memory.device_id, style="dim"),
    )


def _backend(backend: BackendInfo) -> tuple[str | Text, ...]:
    tasks = ", ".join(word(Task, task).lower() for task in backend.tasks)
    if not backend.usable:
        return Text(backend.name, style="dim"), backend.version, "", Text(backend.why_not, style="dim")
    return backend.name, backend.version, tasks, " ".join(backend.builds)
