"""slipway.runner.v1.RunnerService: the host, its devices and its backends."""

import socket
import time
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import anyio.to_thread
from slipway.common.v1 import device_pb2, task_pb2
from slipway.runner.v1 import runner_pb2, runner_service_pb2_grpc
from slipway.runner.v1 import runner_service_pb2 as pb
from slipway_client import Registry, SlipwayError
from slipway_service.broadcast import Broadcast
from slipway_service.handlers import Context
from slipway_service.health import Health
from slipway_service.lifecycle import Host
from slipway_service.times import timestamp
from slipway_service.validation import Fields
from slipway_service.wire import cursor_message

from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.devices.inventory import Devices
from slipway_runner.models.fleet import Fleet
from slipway_runner.models.plan import Backends
from slipway_runner.models.states import State
from slipway_runner.process import adopt
from slipway_runner.rpc import from_proto, to_proto
from slipway_runner.rpc import models as models_rpc

SERVICE = pb.DESCRIPTOR.services_by_name["RunnerService"]

_REGISTRY_PATIENCE = 1.0
"""Seconds that GetRunner waits for the registry's health; a person is waiting for the answer."""

_KINDS: Mapping[DeviceKind, device_pb2.DeviceKind.ValueType] = {
    DeviceKind.CPU: device_pb2.DEVICE_KIND_CPU,
    DeviceKind.CUDA: device_pb2.DEVICE_KIND_NVIDIA,
    DeviceKind.ROCM: device_pb2.DEVICE_KIND_AMD,
    DeviceKind.VULKAN: device_pb2.DEVICE_KIND_UNSPECIFIED,
}


class RunnerService(runner_service_pb2_grpc.RunnerServiceServicer):
    """The runner itself.

    Args:
        fleet: its models.
        devices: looks at the host's devices.
        backends: what was found on the host when the runner started.
        registry: the client of the registry, asked whether it is there.
        gateway: the gateway's base URL, empty when there is none.
        hub: the hub cache on this host.
        health: where it is said that no models are taken.
    """

    def __init__(
        self,
        fleet: Fleet,
        broadcast: Broadcast,
        *,
        devices: Devices,
        backends: Backends,
        registry: Registry,
        gateway: Callable[[], str],
        hub: Path,
        health: Health,
    ) -> None:
        self._fleet = fleet
        self._broadcast = broadcast
        self._devices = devices
        self._backends = backends
        self._registry = registry
        self._gateway = gateway
        self._hub = hub
        self._instance = str(uuid.uuid4())
        self._started = time.time()
        self._adoption_why_not = adopt.why_not()
        self._health = health

    def offer(self, host: Host) -> None:
        """Serve this on a host."""
        host.offer(SERVICE, runner_service_pb2_grpc.add_RunnerServiceServicer_to_server, self)

    async def GetRunner(self, request: pb.GetRunnerRequest, context: Context) -> pb.GetRunnerResponse:
        cursor = cursor_message(self._broadcast.log.cursor)
        return pb.GetRunnerResponse(runner=await self._message(), cursor=cursor)

    async def DrainRunner(self, request: pb.DrainRunnerRequest, context: Context) -> pb.DrainRunnerResponse:
        with Fields() as fields:
            seconds = fields.parse("drain_timeout", from_proto.seconds, request.drain_timeout)
            timed = request.HasField("drain_timeout")
            fields.check("undo", not (request.undo and (request.keep_models or timed)), "excludes all other fields")
        cursor = cursor_message(self._broadcast.log.cursor)
        if request.undo:
            self._fleet.undrain()
        else:
            self._fleet.drain(keep_models=request.keep_models, drain_seconds=seconds if timed else None)
        # Only the service that takes models: reading, watching and the undo are served on.
        self._health.set(models_rpc.SERVICE.full_name, not self._fleet.draining)
        return pb.DrainRunnerResponse(runner=await self._message(), cursor=cursor)

    async def _message(self) -> runner_pb2.Runner:
        inventory = await anyio.to_thread.run_sync(self._devices.look)
        models = self._fleet.list()
        why_not = self._no_adoption()
        owners = {pid: to_proto.MODEL_PREFIX + model.id for model in models for pid in model.pids}
        return runner_pb2.Runner(
            host=socket.gethostname(),
            instance_id=self._instance,
            version=metadata.version("slipway-runner"),
            start_time=timestamp(self._started),
            devices=[
                _device(device, owners, self._fleet.claimed(device)) for device in (inventory.cpu, *inventory.gpus)
            ],
            backends=backend_infos(self._backends),
            draining=self._fleet.draining,
            model_count=len(models),
            loaded_count=sum(model.state is State.LOADED for model in models),
            gateway=self._gateway(),
            registry=self._registry.connection.address,
            registry_reachable=await self._registry_reachable(),
            cache_directory=str(self._hub),
            adoption=not why_not,
            adoption_why_not=why_not,
        )

    def _no_adoption(self) -> str:
        """Why models do not survive this process, or what was done last to them; empty when all of it does."""
        refusal = self._fleet.journal.refusal
        return "; ".join(
            filter(None, (self._adoption_why_not, refusal and f"the journal cannot be written: {refusal}"))
        )

    async def _registry_reachable(self) -> bool:
        try:
            return await self._registry.health(timeout=_REGISTRY_PATIENCE) == "SERVING"
        except SlipwayError:
            return False


def backend_infos(backends: Backends) -> list[runner_pb2.BackendInfo]:
    """The backends by name, usable or not."""
    infos = [
        runner_pb2.BackendInfo(
            name=name,
            tasks=_tasks(backends, name),
            usable=True,
            version=found.version,
            path=found.program[0],
            builds=sorted(found.kinds),
        )
        for name, (_, found) in backends.usable.items()
    ]
    infos += [
        runner_pb2.BackendInfo(name=name, tasks=_tasks(backends, name), why_not=it.why)
        for name, it in backends.unusable.items()
    ]
    return sorted(infos, key=_by_name)


def _tasks(backends: Backends, name: str) -> list[task_pb2.Task.ValueType]:
    return [to_proto.TASKS[task] for task in backends.adapter(name).tasks]


def _by_name(info: runner_pb2.BackendInfo) -> str:
    return info.name


def _device(device: Device, owners: Mapping[int, str], reserved: int) -> runner_pb2.Device:
    return runner_pb2.Device(
        memory=device_pb2.DeviceMemory(
            device_id=device.uuid,
            kind=_KINDS[device.kind],
            total_bytes=device.memory_total,
            free_bytes=max(0, device.memory_free - reserved),
        ),
        display_name=device.name,
        index=device.index,
        used_bytes=device.memory_used,
        reserved_bytes=reserved,
        utilization=device.utilization,
        driver_version=device.driver,
        processes=[
            runner_pb2.DeviceProcess(pid=it.pid, used_bytes=it.memory_bytes or 0, model=owners.get(it.pid, ""))
            for it in device.processes
        ],
        parent_device_id=device.parent,
        fault="" if device.usable else device.why_not,
    )
