"""Who this runner is: the tag of all it starts and the holder of its pins, both kept in its state directory."""

import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from slipway_service.state_dir import StartError, write_whole

_log = structlog.get_logger(__name__)


def read_instance(state_dir: Path) -> str:
    """This runner's tag, a UUID, made when its state directory is first used.

    What is no UUID is replaced, as a host leaves it that lost its power: two runners with an empty tag would take each
    other's backends for their own. Models of the journal are found again all the same.

    Raises:
        StartError: it can be neither read nor written.
    """
    return _kept(state_dir / "instance", _is_uuid, lambda: str(uuid.uuid4()))


def read_holder(state_dir: Path) -> str:
    """Who holds this runner's pins: `runner/HOST/…`, the same for as long as it has this state directory.

    A container has another host name with each start, and the pins of the start before must still be found. What is
    no line of text is replaced.

    Raises:
        StartError: it can be neither read nor written.
    """
    instance = read_instance(state_dir)
    return _kept(state_dir / "holder", _is_line, lambda: f"runner/{socket.gethostname()}/{instance[:8]}")


def _kept(path: Path, right: Callable[[str], bool], make: Callable[[], str]) -> str:
    try:
        with suppress(FileNotFoundError):
            found = path.read_text(errors="replace").strip()
            if right(found):
                return found
            _log.warning("unusable, and made anew", file=str(path), content=found[:80])
        made = make()
        write_whole(path, made, durable=True)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    return made


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _is_line(text: str) -> bool:
    return bool(text) and text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text
