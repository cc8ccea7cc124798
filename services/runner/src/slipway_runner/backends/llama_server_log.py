"""What llama-server's log says, and what it tells the router whose child it takes itself for."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from slipway_service.fault import Reason

from slipway_runner.backends.base import ModelFiles, Reader
from slipway_runner.backends.ends import read_cause, signs
from slipway_runner.progress.signals import Detail, Fraction, InForce, LoadStage, Ready, Shards, Signal, Source, Stage

_STATE = "cmd_child_to_router:state:"

_SIGNS = signs(
    (r"invalid device: ", Reason.DEVICE_NOT_FOUND),
    (r"^error: |error while handling argument", Reason.BACKEND_FLAG_REJECTED),
    (r" E .*couldn't bind HTTP server socket", Reason.PORT_IN_USE),
    (r" E .*(?:No such file or directory|failed to load GGUF split from)", Reason.MODEL_FILE_MISSING),
    (r" E .*(?:[Ii]nsufficient memory|[Oo]ut of memory|OutOfDeviceMemory)", Reason.OUT_OF_MEMORY),
    (r" E .*(?:Cannot allocate memory|(?:failed|unable) to allocate|bad_alloc)", Reason.OUT_OF_MEMORY),
    (r"unknown model architecture", Reason.BACKEND_UNSUITABLE),
    (r" E .*(?:invalid magic|not within the file bounds|illegal split file)", Reason.MODEL_FILE_INVALID),
    (r" E .*error loading model: ", Reason.MODEL_FILE_INVALID),
    (r" E .*failed to initialize the context: ", Reason.BACKEND_EXITED),
)

_WARMING_UP = re.compile(r"llama threadpool init|warming up the model|initializing, n_slots")
_CONTEXT = re.compile(r"n_ctx_slot = (\d+)")
_OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers to GPU")


class LlamaReader(Reader):
    """Reads llama-server's log, and what it tells its router."""

    def __init__(self, files: ModelFiles) -> None:
        self._names = [path.name for path in files.weights]
        self._ends = list(accumulate(_size(path) for path in files.weights))

    def line(self, text: str) -> tuple[Signal, ...]:
        """See `Reader.line`."""
        if text.startswith(_STATE):
            return tuple(self._state(text.removeprefix(_STATE)))
        cause = read_cause(_SIGNS, text)
        return (cause,) if cause else tuple(_log(text))

    def in_force(self, body: bytes) -> Mapping[str, str]:
        """Read `/props`."""
        try:
            document = json.loads(body)
            told = {
                "context_length": document.get("default_generation_settings", {}).get("n_ctx"),
                "parallel_requests": document.get("total_slots"),
            }
        except (ValueError, AttributeError):
            return {}
        return {name: str(value) for name, value in told.items() if value is not None}

    def _state(self, document: str) -> Iterator[Signal]:
        try:
            state = json.loads(document)
            if state["state"] == "loading":
                yield from self._loading(state["payload"])
            elif state["state"] == "ready":
                yield Ready()
        except (ValueError, KeyError, TypeError):
            return

    def _loading(self, payload: Mapping[str, Any]) -> Iterator[Signal]:
        stages, current, value = payload["stages"], payload["current"], float(payload["value"])
        yield Fraction(LoadStage.LOADING_WEIGHTS, (stages.index(current) + value) / len(stages), Source.REPORTED)
        if current != "text_model":
            yield Detail(f"loading the {current.removesuffix('_model')} model")
        elif len(self._names) > 1:
            yield self._shards(value)
        if current == stages[-1] and value >= 1:
            yield Stage(LoadStage.WARMING_UP, Source.REPORTED)

    def _shards(self, value: float) -> Shards:
        """It reports the share of all bytes, and reads the parts of a split one after the other."""
        read = value * self._ends[-1]
        done = len(self._names) if value >= 1 else sum(end <= read for end in self._ends)
        current = self._names[done] if done < len(self._names) else ""
        return Shards(done, len(self._names), current, Source.REPORTED)


def _log(text: str) -> Iterator[Signal]:
    if "load_model: loading model" in text:
        yield Stage(LoadStage.LOADING_WEIGHTS)
    elif _WARMING_UP.search(text):
        yield Stage(LoadStage.WARMING_UP)
    elif "llama_server: model loaded" in text or "listening on http" in text:
        yield Ready()
    if found := _OFFLOADED.search(text):
        yield InForce({"gpu_layers": found[1]})
    if found := _CONTEXT.search(text):
        yield InForce({"context_length": found[1]})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
