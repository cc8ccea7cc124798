"""A model's hold on the snapshot it runs from, so that nobody deletes it meanwhile."""

from dataclasses import dataclass

import anyio
import structlog

from slipway_runner.models.plan import Plan
from slipway_runner.models.snapshots import PIN_RENEWAL_SECONDS, PIN_RETRY_SECONDS, Snapshots, Want
from slipway_runner.models.spec import RepoSource

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pin:
    """The hold of one load, by its uid; a model on a path holds nothing."""

    snapshots: Snapshots
    plan: Plan
    uid: str

    @property
    def want(self) -> Want | None:
        """What is held."""
        source = self.plan.spec.source
        if not isinstance(source, RepoSource):
            return None
        plan = self.plan
        return Want(source=source, commit=plan.commit, variant=plan.variant, files=plan.wanted, holder=self.uid)

    async def keep(self, *, taken: bool) -> None:
        """Renew it, for ever. A registry that is away does not matter: the pin lasts longer than it usually is.

        `taken` is whether it is there already; what was loaded without the registry is not pinned yet.
        """
        pause = PIN_RENEWAL_SECONDS if taken else PIN_RETRY_SECONDS
        while (want := self.want) is not None:
            await anyio.sleep(pause)
            try:
                await self.snapshots.renew(want)
                pause = PIN_RENEWAL_SECONDS
            except Exception as error:
                _log.warning("pin not renewed", uid=self.uid, error=repr(error))
                pause = PIN_RETRY_SECONDS

    async def release(self) -> None:
        """Give it back. Failing to is harmless: it ends by itself."""
        if self.want is None:
            return
        try:
            await self.snapshots.release(self.uid)
        except Exception as error:
            _log.warning("pin not released", uid=self.uid, error=repr(error))
