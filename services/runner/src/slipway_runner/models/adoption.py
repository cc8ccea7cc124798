"""Taking over from the runner before: its journal is held against /proc, and every model goes on from there."""

import os
from collections.abc import Collection
from dataclasses import dataclass

import anyio
import anyio.to_thread
import structlog
from slipway_service.fault import Fault, Reason

from slipway_runner.backends.base import Launch
from slipway_runner.models import states
from slipway_runner.models.means import Means
from slipway_runner.models.saved import Saved, Started
from slipway_runner.models.states import Command, Life, State, Step
from slipway_runner.models.supervisor import Owner, Supervisor
from slipway_runner.process import members, orphans, ports, proc
from slipway_runner.process.adopt import Fate, fate
from slipway_runner.process.journal import Unreadable
from slipway_runner.process.ports import Owner as PortOwner
from slipway_runner.process.running import Running
from slipway_runner.progress.signals import Cause

_log = structlog.get_logger(__name__)

# A backend that serves answers its liveness question in milliseconds; watchers wait for this.
_ANSWER_SECONDS = 3.0

# What cannot be killed within this time is left to whoever looks at the log.
_REAP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A model of the journal, what became of its process, and how to ask it if it lives."""

    saved: Saved
    fate: Fate
    launch: Launch | None
    refusal: Fault | None = None


async def take_over(saved: list[Saved], unreadable: list[Unreadable], means: Means, owner: Owner) -> None:
    """Adopt what runs, end what nobody knows, and continue with every model of the journal."""
    for entry in unreadable:
        _log.warning("journal entry not usable; its processes are ended", entry=entry.name, why=entry.why)
        means.scribe.set_aside(entry.name)
    found = [await _look(one, means) for one in saved]
    keep = {one.saved.started.trace.family.tag for one in found if one.launch is not None and one.saved.started}
    left = await orphans.reap(means.instance, keep, cgroup_root=means.cgroup_root, seconds=_REAP_SECONDS)
    if left:
        _log.error("orphans that cannot be killed", pids=[one.pid for one in left])
    _forget_active(means, owner, known={one.model.id for one in saved})
    await _remove_folders(means, keep={one.model.uid for one in saved})
    async with anyio.create_task_group() as tasks:
        for one in found:
            tasks.start_soon(_continue, one, means, owner)


def _forget_active(means: Means, owner: Owner, *, known: Collection[str]) -> None:
    """Let no model be active that is no more: its entry was lost, or cannot be used."""
    for model_id in set(means.active.all().values()).difference(known):
        means.active.drop(model_id)
        owner.active_changed(model_id, None)


async def _remove_folders(means: Means, *, keep: Collection[str]) -> None:
    """Remove logs and scratch space of models that are no more: who forgot them did not get that far."""
    folder = means.folder("")
    names = await anyio.to_thread.run_sync(os.listdir, folder) if folder.exists() else []
    for name in set(names).difference(keep):
        await means.remove_folder(means.folder(name))


async def _look(saved: Saved, means: Means) -> _Found:
    """What became of the process, and how it is asked; a process that cannot be asked any more is not kept."""
    if saved.started is None:
        rebooted = saved.boot_id not in {"", proc.boot_id()}
        return _Found(saved=saved, fate=Fate.REBOOTED if rebooted else Fate.GONE, launch=None)
    became = fate(saved.started.trace)
    if became in {Fate.GONE, Fate.REBOOTED}:
        return _Found(saved=saved, fate=became, launch=None)
    try:
        backend = means.backends.adapter(saved.plan.backend)
        launch = await anyio.to_thread.run_sync(backend.launch, saved.started.plan)
    except KeyError:
        refusal = Fault(Reason.BACKEND_UNAVAILABLE, f"this runner does not know {saved.plan.backend} any more")
        return _Found(saved=saved, fate=became, launch=None, refusal=refusal)
    except Fault as fault:
        return _Found(saved=saved, fate=became, launch=None, refusal=fault)
    return _Found(saved=saved, fate=became, launch=launch)


async def _continue(found: _Found, means: Means, owner: Owner) -> None:
    saved = found.saved
    answering = await _answers(found, means)
    life, commands = _step(found, means, answering=answering)
    supervisor = Supervisor(saved.model, life, saved.plan, means, owner)
    owner.take_in(supervisor)
    if found.launch is not None and saved.started is not None:
        kept = found.fate is Fate.ALIVE and not _ENDING & set(commands)
        _attach(supervisor, found.launch, saved.started, kept=kept)
    supervisor.begin(commands)


# A process that is ended at once is not followed: what it does meanwhile says nothing of the load after it.
_ENDING = {Command.HALT, Command.KILL}


def _attach(supervisor: Supervisor, launch: Launch, started: Started, *, kept: bool) -> None:
    running = Running.found(started.trace.family)
    supervisor.means.ports.claim(launch.port)
    if kept:
        supervisor.attach(running, launch, started)
    else:
        supervisor.remains(running, launch, started)


def _step(found: _Found, means: Means, *, answering: bool) -> Step:
    life: Life = found.saved.life
    rules = means.numbers.rules(found.saved.model.spec.restart_policy)
    if found.refusal is not None:
        cause = Cause.of(found.refusal)
        return states.refused(life, cause)
    match found.fate:
        case Fate.ALIVE:
            return states.adopted(life, answering=answering)
        case Fate.REBOOTED:
            return states.rebooted(life, rules)
        case _ if found.saved.started is None:
            return states.resumed(life)
        case _:
            return states.lost(life, means.wall(), rules, remains=found.fate is Fate.HEADLESS)


async def _answers(found: _Found, means: Means) -> bool:
    """Whether it answers, on a port that is still its own."""
    started, launch = found.saved.started, found.launch
    if found.fate is not Fate.ALIVE or launch is None or started is None:
        return False
    if found.saved.life.state not in {State.LOADED, State.UNHEALTHY}:
        return False
    with anyio.move_on_after(_ANSWER_SECONDS):
        judgement = await means.asker.ask(launch, launch.liveness)
        ours = ports.owner(launch.port, members.find(started.trace.family).all) is PortOwner.OURS
        return judgement.good and ours
    return False
