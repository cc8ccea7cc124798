"""`transformers serve`: generative models in safetensors, wherever torch runs.

Facts are from transformers 5.23 (cli/serve.py, cli/serving), run and read. It is started without a model: it then
answers /health while `POST /load_model` loads one and reports each tensor. (Given a model at the start it binds its
port after loading and reports to its log only.) The model is named by its path: a snapshot's path holds one commit,
and with `HF_HUB_OFFLINE` nothing else is looked at. It knows no API key.
"""

import json
from collections.abc import Iterator, Mapping
from signal import SIGINT, SIGKILL, SIGTERM

from slipway_service.fault import Reason

from slipway_runner.backends import openai
from slipway_runner.backends.base import (
    End,
    Format,
    Found,
    Host,
    Launch,
    LaunchPlan,
    ModelFiles,
    NotUsable,
    Reader,
    Settings,
    StartLimits,
    StopStep,
    Task,
    post,
)
from slipway_runner.backends.ends import PYTHON_SIGNS, explain_end, read_cause, read_python_cause
from slipway_runner.backends.flags import Rules, choice, flag_arguments, integer, number, switch
from slipway_runner.backends.programs import candidates, distributions, torch_kinds
from slipway_runner.backends.python_server import ENVIRONMENT, bar_signals, offline_environment
from slipway_runner.backends.settings import refuse_remote_code, refuse_settings
from slipway_runner.backends.tasks import generates, why_no_text
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.progress.parse import parse_bar
from slipway_runner.progress.shards import ShardMap, read_shard_map
from slipway_runner.progress.signals import (
    Bytes,
    Cause,
    Detail,
    Fraction,
    LoadStage,
    Ready,
    Shards,
    Signal,
    Source,
    Stage,
)

NAME = "transformers"

_NEEDS = ("transformers", "torch", "accelerate", "fastapi", "uvicorn")

FLAGS: Rules = {
    "attn-implementation": choice("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"),
    "compile": switch,
    "quantization": choice("bnb-4bit", "bnb-8bit"),
    "reasoning": choice("on", "off", "auto"),
    "continuous-batching": switch,
    "cb-block-size": integer(1, 4096),
    "cb-num-blocks": integer(1, 1 << 24),
    "cb-max-batch-tokens": integer(1, 1 << 24),
    "cb-max-memory-percent": number(0, 1),
    "cb-use-cuda-graph": switch,
    "default-seed": integer(0, (1 << 32) - 1),
}


class TransformersServe:
    """The adapter."""

    name = NAME
    tasks = (Task.GENERATE,)

    # uvicorn waits for streams without a limit, and a second SIGTERM changes nothing; SIGINT after it ends it at once.
    stop_ladder = (StopStep(SIGTERM, 5.0), StopStep(SIGINT, 10.0), StopStep(SIGKILL, 20.0))

    start_limits = StartLimits(stall_seconds=300.0, floor_seconds=300.0)

    def usual_seconds(self, size_bytes: int) -> Mapping[LoadStage, float]:
        """Importing torch takes most of the start."""
        return {
            LoadStage.STARTING: 5.0,
            LoadStage.LOADING_WEIGHTS: 1.0 + size_bytes / 1e9,
            LoadStage.WARMING_UP: 1.0,
        }

    def find(self, host: Host) -> Found | NotUsable:
        """Look at what is installed beside the program; starting it to ask takes seconds."""
        why = "there is no transformers on the search path; pip install 'transformers[serving]' accelerate torch"
        for program in candidates(host, NAME, NAME):
            have = distributions(program)
            missing = [name for name in _NEEDS if name not in have]
            if missing:
                why = f"{program} lacks {', '.join(missing)}: pip install 'transformers[serving]' accelerate torch"
            elif int(have["transformers"].split(".")[0]) < 5:
                why = f"{program} is {have['transformers']}; loading on request came with 5"
            else:
                return Found(
                    backend=NAME,
                    version=have["transformers"],
                    program=(str(program), "serve"),
                    kinds=torch_kinds(have["torch"]),
                )
        return NotUsable(backend=NAME, why=why)

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        """It generates text; it has no embeddings and no reranking."""
        if files.format is not Format.SAFETENSORS:
            return f"transformers serve is used for safetensors, and {files.name} is {files.format}"
        if task not in self.tasks:
            return f"transformers serve has no endpoint to {task}"
        if not generates(files):
            return why_no_text(files)
        if "@" in str(files.root) or ":" in str(files.root):
            return f"transformers serve takes the @ or : in {files.root} for the begin of a revision or file"
        missing = {device.kind for device in devices} - found.kinds
        return f"the torch of transformers serve has no {', '.join(sorted(missing))}" if missing else None

    def context_tokens(self, _settings: Settings, _flags: Mapping[str, str], /) -> None:
        """It cannot be told."""

    def launch(self, plan: LaunchPlan) -> Launch:
        """Start it empty; then load."""
        refuse_settings(plan, takes=("device", "dtype"))
        refuse_remote_code(plan.files, allowed=plan.trust_remote_code)
        model = str(plan.files.root)
        return openai.launch(
            plan,
            argv=tuple(_arguments(plan)),
            environment=offline_environment(plan),
            rules=ENVIRONMENT,
            reader=TransformersReader(plan.files),
            model=model,
            load=post("/load_model", {"model": model}, headers={}, timeout=openai.QUESTION_SECONDS),
        )

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        """It ends by the signal that it was sent, with 1 on an exception, with 3 if its port was taken."""
        return explain_end(end, causes, last_lines)


class TransformersReader(Reader):
    """Reads the events of a load, and the log.

    Files are derived from tensors: tensors are loaded in the order of their names, and the headers of the files say
    which tensor lies where. Where the counts differ (some models merge tensors) only tensors are told.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._map: ShardMap | None = read_shard_map(files.weights)

    def line(self, text: str, /) -> tuple[Signal, ...]:
        """See `Reader.line`."""
        if bar := parse_bar(text):
            if "Loading weights" in bar.label:
                return tuple(self._tensors(bar.done, bar.total, Source.LOG))
            return tuple(bar_signals(bar))
        if "Uvicorn running on" in text:
            return (Ready(),)
        cause = read_python_cause(text)
        return (cause,) if cause else ()

    def event(self, data: str, /) -> tuple[Signal, ...]:
        """See `Reader.event`."""
        try:
            return tuple(self._event(json.loads(data)))
        except (ValueError, KeyError, TypeError):
            return ()

    def _event(self, event: Mapping[str, Mapping[str, int]]) -> Iterator[Signal]:
        match event["status"], event.get("stage"):
            case "loading", "weights":
                progress = event["progress"]
                # It counts a tensor when it turns to it, tqdm when it has done with it.
                yield from self._tensors(progress["current"] - 1, progress["total"], Source.REPORTED)
            case "loading", stage:
                yield Detail(f"reading the {stage}")
            case "ready", _:
                yield from self._all()
                yield Stage(LoadStage.WARMING_UP, Source.REPORTED)
                yield Ready()
            case "error", _:
                yield _refusal(str(event["message"]))

    def _tensors(self, done: int, total: int, source: Source) -> Iterator[Signal]:
        if self._map is None or self._map.tensors != total:
            yield Fraction(LoadStage.LOADING_WEIGHTS, done / total, source)
            yield Detail(f"loading weights: {done} of {total} tensors")
        else:
            loaded = self._map.loaded(done)
            yield Shards(loaded.shards, self._map.shards, loaded.current, source)
            yield Bytes(loaded.bytes, self._map.size_bytes, source)

    def _all(self) -> Iterator[Signal]:
        if self._map is not None:
            yield Shards(self._map.shards, self._map.shards, "", Source.REPORTED)
            yield Bytes(self._map.size_bytes, self._map.size_bytes, Source.REPORTED)


def _refusal(message: str) -> Cause:
    return read_cause(PYTHON_SIGNS, message) or Cause(Reason.BACKEND_UNSUITABLE, message)


def _arguments(plan: LaunchPlan) -> Iterator[str]:
    yield from plan.found.program
    # Never unloaded for being idle: that is the runner's to decide.
    yield from ("--host", plan.host, "--port", str(plan.port), "--model-timeout", "-1")
    yield from ("--device", _device(plan))
    if plan.settings.dtype is not None:
        yield from ("--dtype", plan.settings.dtype)
    if plan.trust_remote_code and plan.files.remote_code:
        yield "--trust-remote-code"
    yield from flag_arguments(FLAGS, plan.flags, backend=NAME)


def _device(plan: LaunchPlan) -> str:
    if plan.settings.device is DeviceKind.CPU or not plan.devices:
        return "cpu"
    return "cuda:0" if len(plan.devices) == 1 else "auto"  # torch calls ROCm's devices cuda, too
