"""Looking after a model that runs: probes, the patience with one that does not answer, and its members' ends."""

from typing import TYPE_CHECKING

import anyio
from slipway_service.fault import Reason

from slipway_runner.models import states
from slipway_runner.models.attached import Attached
from slipway_runner.models.states import State
from slipway_runner.process import members, pidfd
from slipway_runner.process.proc import ProcessId
from slipway_runner.progress.signals import Cause

if TYPE_CHECKING:
    from slipway_runner.models.supervisor import Supervisor


class Health:
    """What keeps an eye on one supervisor's process."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._on = supervisor
        self._number = supervisor.life.run
        self._numbers = supervisor.means.numbers

    async def probe(self) -> None:
        """Ask whether it lives: now and then, and more often once there is doubt."""
        while (attached := self._on.attached) is not None:
            calm = self._on.life.state is State.LOADED and not self._on.life.bad_probes
            with anyio.move_on_after(self._numbers.probe if calm else self._numbers.probe_doubt):
                await attached.doubt.wait()
            attached.doubt = anyio.Event()
            judgement = await self._on.means.asker.ask(attached.launch, attached.launch.liveness)
            self._on.apply(states.Probed(self._number, judgement.good, judgement.why))

    async def lose_patience(self) -> None:
        """Report when it has been UNHEALTHY for too long."""
        attached = self._on.attached
        await anyio.sleep(self._numbers.unhealthy)
        self._on.apply(states.Expired(self._number, self._why_silent(attached)))

    def _why_silent(self, attached: Attached | None) -> Cause:
        silence = f"the backend gave no good answer for {self._numbers.unhealthy:.0f} s"
        if attached is not None and attached.lost_members:
            ended = ", ".join(str(one.pid) for one in attached.lost_members)
            return Cause(Reason.BACKEND_ENGINE_DEAD, f"{silence}, after its processes {ended} had ended")
        return Cause(Reason.BACKEND_UNRESPONSIVE, silence)

    async def watch_members(self) -> None:
        """Wait for the end of each process besides the leader, as far as they are known.

        Everybody who was ever found is waited for, whoever found them: one who ended before the next search is in no
        later one, and nobody else would tell of that end.
        """
        attached = self._on.attached
        assert attached is not None
        watched = {attached.running.family.leader}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._search_members, attached)
            while True:
                attached.members_found = anyio.Event()
                for process in set(attached.members) - watched:
                    tasks.start_soon(self._await_end, attached, process)
                watched |= set(attached.members)
                await attached.members_found.wait()

    async def _search_members(self, attached: Attached) -> None:
        """Look for all of them now and then; at once for the children of a process that runs already."""
        found = members.descendants(attached.running.family.leader)
        while True:
            attached.find_members(found)
            self._on.means.reservations.started(self._on.model.uid, attached.pids)
            self._on.show_members()
            found = await self._on.means.members.of(attached.running.family)

    async def _await_end(self, attached: Attached, process: ProcessId) -> None:
        await pidfd.exited(process)
        attached.member_ended(process)
        self._on.show_members()
