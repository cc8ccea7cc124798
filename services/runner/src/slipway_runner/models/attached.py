"""A backend process that a model has, with all that is known of it: how to ask it, what it said, how it ended."""

from collections.abc import Callable

import anyio

from slipway_runner.backends.base import Backend, End, Launch
from slipway_runner.models.output import Output
from slipway_runner.models.record import ProcessExit
from slipway_runner.models.saved import Started
from slipway_runner.process import proc
from slipway_runner.process.logfile import LogFile
from slipway_runner.process.proc import ProcessId
from slipway_runner.process.running import Running
from slipway_runner.process.spawn import Exit
from slipway_runner.progress.signals import Cause, InForce, Ready, Signal

# Kept with a model whose process ended.
_LAST_LINES = 50

# A process that a test of the kernel's memory killer chose ends so.
_SIGKILL = 9


class Attached:
    """One process from its start, or from being found, to its end.

    Args:
        running: it.
        launch: how it is asked, and who reads what it writes.
        started: what was written down about it.
        log: the file that it writes to.
        listen: is told every signal that its output gives.
        replay: read its output from its start; otherwise only what it writes from now on.
    """

    def __init__(
        self,
        running: Running,
        launch: Launch,
        started: Started,
        log: LogFile,
        listen: Callable[[Signal], None],
        *,
        replay: bool = True,
    ) -> None:
        self.running = running
        self.launch = launch
        self.started = started
        self.log = log
        self.members: tuple[ProcessId, ...] = (running.family.leader,)
        self.members_found = anyio.Event()
        self.lost_members: list[ProcessId] = []
        self.causes: list[Cause] = []
        self.in_force: dict[str, str] = {}
        self.ready_hint = anyio.Event()
        self.doubt = anyio.Event()
        self._over: set[ProcessId] = set()
        self._listen = listen
        self._output = Output(log, launch.reader, started.log_start if replay else log.size())

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes when they were last looked up, without those that have ended since; the leader first."""
        return tuple(one.pid for one in self.members)

    @property
    def holders(self) -> tuple[int, ...]:
        """Under which pids devices may show its memory: those of all it ever had that name no other process by now."""
        ended = (one for one in self._over if (now := proc.stat(one.pid)) is None or now.id == one)
        return (*self.pids, *sorted(one.pid for one in ended))

    def find_members(self, found: tuple[ProcessId, ...]) -> None:
        """Take in who belongs to it now. Whoever waits for the ends of its members learns of the new ones at once.

        A search may have begun before an end that is known by now.
        """
        self.members = tuple(one for one in found if one not in self._over)
        self.members_found.set()

    def hear(self, signal: Signal) -> None:
        """Take in what it says of itself."""
        match signal:
            case Cause():
                self.causes.append(signal)
                self.doubt.set()
            case Ready():
                self.ready_hint.set()
            case InForce(settings):
                self.in_force.update(settings)
            case _:
                pass
        self._listen(signal)

    def read_output(self) -> int:
        """Read a piece of what it wrote. Returns how many bytes wait to be read after it."""
        size = self.log.size()
        for signal in self._output.read(size):
            self.hear(signal)
        return max(0, size - self._output.offset)

    @property
    def offset(self) -> int:
        """How far its log has been read."""
        return self._output.offset

    def member_ended(self, process: ProcessId) -> None:
        """One of its processes ended, not the leader. That may be as it should be; whether it still answers will
        tell.
        """
        self._drop(process)
        self.lost_members.append(process)
        self.doubt.set()

    def _drop(self, process: ProcessId) -> None:
        self._over.add(process)
        self.members = tuple(one for one in self.members if one != process)

    async def ended(self, backend: Backend) -> tuple[Cause, ProcessExit]:
        """Wait for the leader's end. Returns why it ended, and how."""
        how = await self.running.ended()
        self._drop(self.running.family.leader)
        for signal in self._output.rest():
            self.hear(signal)
        last_lines = self.log.last_lines(_LAST_LINES)
        cause = backend.explain(self._end(how), tuple(self.causes), last_lines)
        return cause, ProcessExit(code=how.code, signal=how.signal, last_lines=last_lines)

    def _end(self, how: Exit) -> End:
        # The kernel does not say whom its memory killer chose; a SIGKILL that is not ours while it was at work is its.
        oom_killed = how.signal == _SIGKILL and self.running.oom.happened()
        return End(exit_code=how.code, signal=how.signal, oom_killed=oom_killed)
