"""What every command has: the settings, the output, and a loop to run on."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, cast

import anyio
import typer

from slipway_client.cli.output import Output
from slipway_client.cli.settings import Settings
from slipway_client.errors import NotServed, SlipwayError, Unavailable
from slipway_client.registry import Registry
from slipway_client.runner import Runner
from slipway_client.watch import OnDisconnect

Result = TypeVar("Result")
Run: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


class Interrupted(Exception):
    """Ctrl-C during a wait; the text says what goes on and how to end it."""


def first(errors: BaseExceptionGroup[SlipwayError]) -> SlipwayError:
    """The first error in a group of groups."""
    found = errors.exceptions[0]
    return first(found) if isinstance(found, BaseExceptionGroup) else found


class Session:
    """One run of the command.

    Args:
        settings: where the services are.
        output: what is written.
        run: runs asynchronous work to its end.
    """

    def __init__(self, settings: Settings, output: Output, run: Run = anyio.run) -> None:
        self.settings = settings
        self.output = output
        self._run = run

    @property
    def as_json(self) -> bool:
        """Whether programs read the output."""
        return self.output.as_json

    def registry(self) -> Registry:
        """A client of the registry; closed by its context manager."""
        return Registry.connect(self.settings.registry)

    def runner(self) -> Runner:
        """A client of the runner; closed by its context manager."""
        return Runner.connect(self.settings.runner)

    def run(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Runs asynchronous work to its end.

        Raises:
            SlipwayError: the first one, also out of a task group.
        """
        try:
            result: Result = self._run(work)
        except* SlipwayError as errors:
            error = first(errors)
        else:
            return result
        raise self.explained(error) from error

    def explained(self, error: SlipwayError) -> SlipwayError:
        """The error itself, or one that says what to do where the service itself could not."""
        names = {self.settings.registry: "registry", self.settings.runner: "runner"}
        if (name := names.get(error.address)) is None:
            return error
        if type(error) is Unavailable and not error.from_service:
            said = f"no {name} answers at {error.address}; is slipway-{name} running? --{name} HOST:PORT names another"
        elif type(error) is NotServed:
            said = f"what answers at {error.address} does not serve this; is it slipway-{name}, and not an older one?"
        else:
            return error
        return type(error)(error.reason, said, code=error.code, details=error.details)


def session(context: typer.Context) -> Session:
    """The session that the command's root has made."""
    return cast("Session", context.obj)


@contextmanager
def goes_on(note: str | Callable[[], str]) -> Iterator[None]:
    """Ctrl-C within raises Interrupted with this note: what goes on, or what remains."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        raise Interrupted(note if isinstance(note, str) else note()) from None


def telling(note: Callable[[str], None]) -> OnDisconnect:
    """Tells of the first lost stream of a wait; the attempts after it would only repeat it."""
    told: set[str] = set()

    def tell(error: SlipwayError, _: float) -> None:
        if error.address not in told:
            told.add(error.address)
            note(f"lost {error.address or 'the connection'} ({error.reason}); going on when it is back")

    return tell


Parsed = TypeVar("Parsed")


def usage(parse: Callable[[], Parsed]) -> Parsed:
    """What `parse` makes of the command line; its ValueError becomes a usage error."""
    try:
        return parse()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
