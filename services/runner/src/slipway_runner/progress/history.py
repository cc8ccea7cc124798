"""How long the stages of a load took the last time, per model: what divides the next load's progress."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slipway_runner.progress.signals import LoadStage

MAX_MODELS = 500
"""Models that are remembered, the ones loaded last; about 200 bytes each."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that each stage is expected to take; `measured` if they were measured on this host."""

    seconds: Mapping[LoadStage, float]
    measured: bool


class History:
    """The stages' durations of the last good load of each model, in one small JSON file.

    A file that cannot be read counts as empty: what is lost is only how well progress is divided.

    Args:
        path: the file; its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, dict[str, float]] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            known = {stage.value for stage in LoadStage}
            for model, stages in json.loads(path.read_bytes()).items():
                self._seconds[model] = {name: float(value) for name, value in stages.items() if name in known}

    def expected(self, model: str, usual: Mapping[LoadStage, float]) -> Expected:
        """Return what to expect of a load, `usual` where there is no history.

        Args:
            model: anything that tells apart what loads differently, such as repository, commit, variant and backend.
            usual: of a backend with a model of this size, see `Backend.usual_seconds`; a stage that it does not have
                (a download of what is there) is not expected, whatever it took the last time.
        """
        last = self._seconds.get(model)
        if last is None:
            return Expected(usual, measured=False)
        return Expected({stage: last.get(stage.value, seconds) for stage, seconds in usual.items()}, measured=True)

    def record(self, model: str, seconds: Mapping[LoadStage, float]) -> None:
        """Remember a load that ended well (blocking, one small write). Raises OSError."""
        self._seconds.pop(model, None)
        self._seconds[model] = {stage.value: round(value, 3) for stage, value in seconds.items()}
        for oldest in list(self._seconds)[:-MAX_MODELS]:
            del self._seconds[oldest]
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(self._seconds))
        temporary.replace(self._path)
