"""What a watch tells, and the state it adds up to. Pure: no I/O, no clock."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from slipway.common.v1.watch_pb2 import Cursor


class Named(Protocol):
    """A resource, or progress of one."""

    @property
    def name(self) -> str:
        """`downloads/{id}`, `models/{id}` …"""
        ...


Resource = TypeVar("Resource", bound=Named)
Update = TypeVar("Update", bound=Named)


@dataclass(frozen=True, slots=True)
class Changed(Generic[Resource]):
    """A transition: the whole resource as it is after it.

    Each comes exactly once, in order. Up to `Synced`, after `Reset` or in a watch that was given no cursor, it is the
    state as the server has it instead.
    """

    resource: Resource


@dataclass(frozen=True, slots=True)
class Progressed(Generic[Update]):
    """The newest progress of a resource since its last transition."""

    update: Update


@dataclass(frozen=True, slots=True)
class Removed:
    """A resource is gone."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget everything; the state follows, up to `Synced`."""


@dataclass(frozen=True, slots=True)
class Synced:
    """State or replay are complete; what follows is live. A watch may begin again behind `cursor`."""

    cursor: Cursor


Event: TypeAlias = Changed[Resource] | Progressed[Update] | Removed | Reset | Synced


@dataclass(frozen=True, slots=True)
class Kind(Generic[Resource, Update]):
    """What is watched: how its events read, and how progress changes it."""

    field: str
    """The resource's field in the event's oneof, for example `download`."""
    with_progress: Callable[[Resource, Update], Resource]
    """A copy of a resource with its progress replaced."""

    def event(self, message: Any) -> Event[Resource, Update] | None:
        """The event in a `…Event` message; None for one that a newer server has and this client does not know."""
        which = message.WhichOneof("event")
        if which == self.field:
            return Changed(getattr(message, which))
        if which == "progress":
            return Progressed(message.progress)
        if which == "deleted":
            return Removed(message.deleted.name, message.deleted.uid)
        return None


class Mirror(Generic[Resource, Update]):
    """The state that the events of a watch add up to.

    It is always whole: between `Reset` and `Synced` it still shows the state before.
    """

    def __init__(self, kind: Kind[Resource, Update], known: Iterable[Resource] = ()) -> None:
        self._kind = kind
        self._resources: dict[str, Resource] = {resource.name: resource for resource in known}
        self._coming: dict[str, Resource] | None = None

    @property
    def resources(self) -> Mapping[str, Resource]:
        """Resources by name, each with its newest progress. The messages in it are not to be changed."""
        return self._resources

    def apply(self, event: Event[Resource, Update]) -> None:
        """Takes the next event."""
        resources = self._resources if self._coming is None else self._coming
        match event:
            case Changed(resource):
                resources[resource.name] = resource
            case Progressed(update):
                known = resources.get(update.name)
                if known is not None and uid(known) == uid(update):
                    resources[update.name] = self._kind.with_progress(known, update)
            case Removed(name, gone):
                if name in resources and uid(resources[name]) in ("", gone):
                    del resources[name]
            case Reset():
                self._coming = {}
            case Synced():
                self._resources, self._coming = resources, None


def uid(resource: Named) -> str:
    """What tells a resource from a later one of the same name; empty for a pin, whose name is never used again."""
    return getattr(resource, "uid", "")
