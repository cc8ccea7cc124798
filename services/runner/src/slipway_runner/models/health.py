"""Looking after a model that runs: probes, the patience with one that does not answer, and its members' ends."""

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from slipway_service.fault import Reason

from slipway_runner.models import states
from slipway_runner.models.states import State
from slipway_runner.process import members, pidfd
from slipway_runner.process.proc import ProcessId
from slipway_runner.progress.signals import Cause

if TYPE_CHECKING:
    from slipway_runner.models.supervisor import Supervisor

_SHOWN_PIDS = 256


class Health:
    """What keeps an eye on one supervisor's processes."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._on = supervisor

    async def probe(self) -> None:
        """Ask whether it lives: now and then, and more often once it was silent."""
        number = self._on.life.run
        numbers = self._on.means.numbers
        while True:
            calm = self._on.life.state is State.LOADED and not self._on.life.bad_probes
            with anyio.move_on_after(numbers.probe if calm else numbers.probe_doubt):
                await self._on.probe_now.wait()
            self._on.probe_now = anyio.Event()
            if self._on.launch is None:
                return
            judgement = await self._on.means.asker.ask(self._on.launch, self._on.launch.liveness)
            self._on.apply(states.Probed(number, judgement.good), message="" if judgement.good else judgement.why)

    async def lose_patience(self) -> None:
        """Report when it has been UNHEALTHY for too long."""
        number = self._on.life.run
        seconds = self._on.means.numbers.unhealthy
        await anyio.sleep(seconds)
        known = tuple(cause for cause in self._on.causes if cause.reason is Reason.BACKEND_ENGINE_DEAD)
        silence = Cause(Reason.BACKEND_UNRESPONSIVE, f"the backend gave no good answer for {seconds:.0f} s")
        self._on.apply(states.Expired(number, (*known, silence)[0]))

    async def watch_members(self) -> None:
        """Find the processes it has besides its leader, and probe at once when one of them ends."""
        watched: set[ProcessId] = set()
        async with anyio.create_task_group() as tasks:
            while (running := self._on.running) is not None:
                found = members.find(running.family).all
                self._on.model = replace(self._on.model, pids=tuple(one.pid for one in found[:_SHOWN_PIDS]))
                for process in set(found) - watched - {running.family.leader}:
                    tasks.start_soon(self._probe_at_end_of, process)
                watched |= set(found)
                await anyio.sleep(self._on.means.numbers.member_scan)

    async def _probe_at_end_of(self, process: ProcessId) -> None:
        await pidfd.exited(process)
        self._on.probe_now.set()
