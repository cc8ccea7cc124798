"""What recorded output is read as."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway_runner.backends.base import End, Reader
from slipway_runner.backends.command import CommandReader
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.llama_server_log import LlamaReader
from slipway_runner.backends.sglang import SglangReader
from slipway_runner.backends.transformers_serve import TransformersReader, TransformersServe
from slipway_runner.backends.vllm import Vllm, VllmReader
from slipway_runner.progress.parse import Lines
from slipway_runner.progress.signals import (
    Bytes,
    Cause,
    Detail,
    Fraction,
    InForce,
    LoadStage,
    Ready,
    Shards,
    Signal,
    Source,
    Stage,
)
from slipway_runner.progress.tracker import STAGES, Tracker
from slipway_service.fault import Reason

from tests.unit.runner.backends.data import LOGS, recorded
from tests.unit.runner.backends.plans import gguf, safetensors
from tests.unit.runner.progress.test_shards import write_safetensors

LOADING, WARMING_UP = LoadStage.LOADING_WEIGHTS, LoadStage.WARMING_UP


def signals(reader: Reader, data: bytes) -> list[Signal]:
    lines = Lines()
    return [signal for line in (*lines.feed(data), *lines.close()) for signal in reader.line(line)]


def causes(told: Sequence[Signal]) -> tuple[Cause, ...]:
    return tuple(one for one in told if isinstance(one, Cause))


# llama-server


def test_llama_server_as_a_child_reports_its_progress() -> None:
    assert signals(LlamaReader(gguf()), recorded("llama_server.child.log")) == [
        Fraction(LOADING, 0.0, Source.REPORTED),
        Stage(LOADING),
        Fraction(LOADING, 0.4786404073238373, Source.REPORTED),
        Fraction(LOADING, 0.7698284983634949, Source.REPORTED),
        Fraction(LOADING, 1.0, Source.REPORTED),
        Stage(WARMING_UP, Source.REPORTED),
        Stage(WARMING_UP),
        Stage(WARMING_UP),
        InForce({"context_length": "512"}),
        Ready(),
        Ready(),
        Ready(),
    ]


def test_an_older_llama_server_shows_its_stages_in_its_log() -> None:
    told = signals(LlamaReader(gguf()), recorded("llama_server.embed.log"))
    assert told == [
        Stage(LOADING),
        Stage(WARMING_UP),
        Stage(WARMING_UP),
        InForce({"context_length": "512"}),
        Ready(),
        Ready(),
    ]


def state(stages: str, current: str, value: float) -> str:
    payload = f'{{"stages":[{stages}],"current":"{current}","value":{value}}}'
    return f'cmd_child_to_router:state:{{"state":"loading","payload":{payload}}}'


def test_a_projector_takes_its_part_of_the_loading() -> None:
    reader, stages = LlamaReader(gguf()), '"text_model","mmproj_model"'
    assert reader.line(state(stages, "text_model", 1.0)) == (Fraction(LOADING, 0.5, Source.REPORTED),)
    assert reader.line(state(stages, "mmproj_model", 0.5)) == (
        Fraction(LOADING, 0.75, Source.REPORTED),
        Detail("loading the mmproj model"),
    )


def test_parts_of_a_split_are_counted_by_their_bytes(tmp_path: Path) -> None:
    parts = tuple(tmp_path / f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3))
    for path, size in zip(parts, (10, 60, 30), strict=True):
        path.write_bytes(bytes(size))
    reader = LlamaReader(gguf(weights=parts))
    shards = [reader.line(state('"text_model"', "text_model", value))[1] for value in (0.0, 0.5, 0.7, 1.0)]
    assert shards == [
        Shards(0, 3, parts[0].name, Source.REPORTED),
        Shards(1, 3, parts[1].name, Source.REPORTED),
        Shards(2, 3, parts[2].name, Source.REPORTED),
        Shards(3, 3, "", Source.REPORTED),
    ]


@pytest.mark.parametrize(
    ("log", "reason", "words"),
    [
        ("missing", Reason.MODEL_FILE_MISSING, "No such file or directory"),
        ("splitmissing", Reason.MODEL_FILE_MISSING, "split-00003-of-00004.gguf"),
        ("trunc", Reason.MODEL_FILE_INVALID, "not within the file bounds"),
        ("portinuse", Reason.PORT_IN_USE, "couldn't bind HTTP server socket"),
        ("oom_ctx", Reason.OUT_OF_MEMORY, "insufficient memory"),
    ],
)
def test_why_llama_server_ended(log: str, reason: Reason, words: str) -> None:
    told = signals(LlamaReader(gguf()), recorded(f"llama_server.{log}.log"))
    cause = LlamaServer().explain(End(exit_code=1), causes(told), ())
    assert cause.reason is reason
    assert words in cause.text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("error: invalid argument: --no-mmap", Reason.BACKEND_FLAG_REJECTED),
        ('error while handling argument "-dev": invalid device: CUDA0', Reason.DEVICE_NOT_FOUND),
        (
            "0.00.01 E llama_model_load: error loading model: illegal split file idx: 1 (file: x)",
            Reason.MODEL_FILE_INVALID,
        ),
        (
            "0.00.01 E llama_model_load: error loading model: unknown model architecture: 'brand-new'",
            Reason.BACKEND_UNSUITABLE,
        ),
        (
            "0.00.01 E ggml_backend_cuda_buffer_type: cudaMalloc failed: out of memory",
            Reason.OUT_OF_MEMORY,
        ),
    ],
)
def test_other_complaints_of_llama_server(line: str, reason: Reason) -> None:
    assert [cause.reason for cause in causes(LlamaReader(gguf()).line(line))] == [reason]


def test_what_a_request_says_is_no_complaint() -> None:
    assert LlamaReader(gguf()).line("0.01.00 I srv  params: my prompt is about: out of memory") == ()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state":"loading"}', '{"state":"loading","payload":{"stages":[]}}'])
def test_a_state_that_is_none_is_passed_over(text: str) -> None:
    assert LlamaReader(gguf()).line(f"cmd_child_to_router:state:{text}") == ()


def test_settings_in_force_of_llama_server() -> None:
    body = b'{"default_generation_settings": {"n_ctx": 512}, "total_slots": 4}'
    assert LlamaReader(gguf()).in_force(body) == {"context_length": "512", "parallel_requests": "4"}
    assert LlamaReader(gguf()).in_force(b"[]") == {}


# transformers serve


def test_transformers_4_counts_files() -> None:
    told = signals(TransformersReader(safetensors()), recorded("transformers4.load.log"))
    assert told[2:5] == [Shards(0, 9), Shards(1, 9), Shards(2, 9)]
    assert told[-1] == Shards(9, 9)


def test_the_line_of_the_story_is_shards_1_of_4() -> None:
    (told,) = signals(TransformersReader(safetensors()), "Loading checkpoint shards: 25%|██▌ | 1/4\n".encode())
    assert told == Shards(1, 4)


def test_transformers_5_counts_tensors_where_nothing_says_how_they_lie() -> None:
    told = signals(TransformersReader(safetensors()), recorded("transformers5.forced.log"))
    assert told[2:4] == [Fraction(LOADING, 70 / 219, Source.LOG), Detail("loading weights: 70 of 219 tensors")]
    assert told[-1] == Ready()


def events(reader: TransformersReader) -> list[Signal]:
    lines = recorded("transformers5.load.sse").decode().splitlines()
    return [one for line in lines if line for one in reader.event(line.removeprefix("data: "))]


def test_the_events_of_a_load_are_reported_progress() -> None:
    told = events(TransformersReader(safetensors()))
    assert told[:4] == [
        Detail("reading the processor"),
        Detail("reading the config"),
        Fraction(LOADING, 0.0, Source.REPORTED),
        Detail("loading weights: 0 of 219 tensors"),
    ]
    assert told[-2:] == [Stage(WARMING_UP, Source.REPORTED), Ready()]


def test_tensors_become_files_where_their_headers_say_how_they_lie(tmp_path: Path) -> None:
    weights = tuple(tmp_path / f"model-0000{n}-of-00004.safetensors" for n in range(1, 5))
    for shard, path in enumerate(weights):
        write_safetensors(path, {f"model.layers.{shard}.{part}.weight": 10 for part in ("a", "b")})
    reader = TransformersReader(safetensors(weights=weights))
    told: list[Signal] = []
    for current in range(1, 9):
        progress = f'{{"current": {current}, "total": 8}}'
        told += reader.event(f'{{"status": "loading", "stage": "weights", "progress": {progress}}}')
    told += reader.event('{"status": "ready", "cached": false}')
    shards = [one for one in told if isinstance(one, Shards)]
    assert [one.done for one in shards] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert shards[2] == Shards(1, 4, weights[1].name, Source.REPORTED)
    assert [one.done for one in told if isinstance(one, Bytes)] == [0, 10, 20, 30, 40, 50, 60, 70, 80]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Error while deserializing header: incomplete metadata, file not fully covered", Reason.MODEL_FILE_INVALID),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", Reason.OUT_OF_MEMORY),
        ("/x does not appear to have a file named config.json", Reason.MODEL_FILE_MISSING),
        ("module transformers has no attribute BrandNewForCausalLM", Reason.BACKEND_UNSUITABLE),
    ],
)
def test_a_load_that_fails_though_the_server_lives(message: str, reason: Reason) -> None:
    told = TransformersReader(safetensors()).event(f'{{"status": "error", "message": "{message}"}}')
    assert told == (Cause(reason, message),)


@pytest.mark.parametrize("data", ["", "[DONE]", "[]", "{}", '{"status": "loading", "stage": "weights"}'])
def test_an_event_that_is_none_is_passed_over(data: str) -> None:
    assert TransformersReader(safetensors()).event(data) == ()


def test_why_transformers_ended() -> None:
    told = signals(TransformersReader(safetensors()), recorded("transformers5.corrupt.log"))
    cause = TransformersServe().explain(End(exit_code=1), causes(told), ())
    assert cause.reason is Reason.MODEL_FILE_INVALID
    assert "file not fully covered" in cause.text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 1)", Reason.PORT_IN_USE),
        ("│ No such option: --nonsense                               │", Reason.BACKEND_FLAG_REJECTED),
        ("Error: No such option '--nonsense'.", Reason.BACKEND_FLAG_REJECTED),
        ("vllm: error: unrecognized arguments: --nonsense", Reason.BACKEND_FLAG_REJECTED),
        ("torch.OutOfMemoryError: CUDA out of memory.", Reason.OUT_OF_MEMORY),
        ("RuntimeError: No CUDA GPUs are available", Reason.DEVICE_NOT_FOUND),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", Reason.MODEL_FILE_MISSING),
        ("ValueError: The repository x contains custom code which must be executed", Reason.REMOTE_CODE_REQUIRED),
        ("ValueError: something else", Reason.BACKEND_EXITED),
    ],
)
def test_complaints_of_python_programs(line: str, reason: Reason) -> None:
    assert [cause.reason for cause in causes(TransformersReader(safetensors()).line(line))] == [reason]


@pytest.mark.parametrize(
    "line", ["FutureWarning: out of memory soon", "INFO:     prompt: address already in use", "    raise OSError("]
)
def test_what_only_speaks_of_failures_is_none(line: str) -> None:
    assert TransformersReader(safetensors()).line(line) == ()


# vLLM and SGLang


def test_vllm_counts_files() -> None:
    told = signals(VllmReader(), recorded("vllm.load.stderr.log"))
    assert [one.done for one in told if isinstance(one, Shards)] == [0, 1, 2, 4, 5, 7, 9, 9]
    assert told[-1] == Ready()
    assert not causes(told)


def test_vllm_tells_its_stages() -> None:
    told = signals(VllmReader(), recorded("vllm.load.stdout.log"))
    assert told == [
        InForce({"context_length": "512"}),
        Detail("starting the engine"),
        Stage(LOADING),
        Stage(WARMING_UP),
        Detail("starting the server"),
        Ready(),
    ]


def test_vllm_on_a_gpu() -> None:
    told = signals(VllmReader(), recorded("vllm.gpu.constructed.log"))
    assert [one for one in told if not isinstance(one, Shards)] == [
        InForce({"context_length": "4096"}),
        Detail("starting the engine"),
        Stage(LOADING),
        Stage(WARMING_UP),
        Stage(WARMING_UP),
        Detail("compiling the model"),
        Detail("compiling the model"),
        Detail("making room for the key-value cache"),
        Fraction(WARMING_UP, 0.0),
        Detail("capturing CUDA graphs: 0 of 67"),
        Fraction(WARMING_UP, 28 / 67),
        Detail("capturing CUDA graphs: 28 of 67"),
        Fraction(WARMING_UP, 1.0),
        Detail("capturing CUDA graphs: 67 of 67"),
        Detail("CUDA graphs captured"),
        Detail("starting the server"),
        Ready(),
    ]


def test_the_root_cause_of_vllm_is_told_and_not_that_its_engine_failed() -> None:
    both = recorded("vllm.corrupt.stdout.log") + recorded("vllm.corrupt.stderr.log")
    cause = Vllm().explain(End(exit_code=1), causes(signals(VllmReader(), both)), ())
    assert cause.reason is Reason.MODEL_FILE_INVALID
    assert cause.text.startswith("safetensors._safetensors_rust.SafetensorError: Error while deserializing header")


def test_an_engine_that_is_killed_is_known_for_dead_though_the_exit_code_is_0() -> None:
    told = signals(VllmReader(), recorded("vllm.killed_engine.stdout.log"))
    assert Vllm().explain(End(exit_code=0), causes(told), ()).reason is Reason.BACKEND_ENGINE_DEAD
    assert Vllm().explain(End(exit_code=0), (), ("bye",)).reason is Reason.BACKEND_ENGINE_DEAD


def test_sglang() -> None:
    assert signals(SglangReader(), recorded("sglang.constructed.log")) == [
        Stage(LOADING),
        Shards(0, 4),
        Shards(1, 4),
        Shards(4, 4),
        Stage(WARMING_UP),
        Detail("key-value cache is there"),
        Detail("capturing CUDA graphs"),
        Fraction(WARMING_UP, 0.5),
        Detail("capturing CUDA graphs: 1 of 2"),
        Fraction(WARMING_UP, 1.0),
        Detail("capturing CUDA graphs: 2 of 2"),
        Ready(),
    ]


def test_a_server_of_which_nothing_is_known() -> None:
    assert signals(CommandReader(), recorded("infinity.load.log")) == []
    assert signals(CommandReader(), recorded("transformers4.load.log"))[-1] == Shards(9, 9)


# all

READERS = (
    lambda: LlamaReader(gguf()),
    lambda: TransformersReader(safetensors()),
    VllmReader,
    SglangReader,
    CommandReader,
)


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("make", READERS)
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, 1 << 15), max_size=100))
def test_progress_is_monotone_and_the_same_however_a_log_is_cut(name: str, make: type[Reader], cuts: list[int]) -> None:
    data = recorded(name)
    reader, lines, told = make(), Lines(), []
    tracker = Tracker(dict.fromkeys(STAGES, 1.0), measured=False, now=0.0)
    last = 0.0
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        for line in lines.feed(data[begin:end]):
            for signal in reader.line(line):
                told.append(signal)
                tracker.feed(signal, 0.0)
                fraction = tracker.progress(0.0).fraction
                assert fraction >= last
                last = fraction
    told += [signal for line in lines.close() for signal in reader.line(line)]
    assert told == signals(make(), data)
