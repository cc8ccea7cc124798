"""The adapter of llama-server on the real one: its command line, progress, answers, failures and end."""

import http.client
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from slipway_runner.backends.base import Found, ModelFiles, Settings, Task
from slipway_runner.backends.llama_server import FLAGS, LlamaServer
from slipway_runner.progress.signals import Fraction, InForce, Ready, Source
from slipway_service.fault import Reason

from tests.integration.runner.backends.carried_out import Running, make_plan, model_files, running

BACKEND = LlamaServer()


@pytest.fixture
def chat(models: Path) -> ModelFiles:
    return model_files(models / "tiny-chat-GGUF" / "tiny-chat-Q4_K_M.gguf", architecture="llama")


def parts(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*-of-*.gguf")))


def test_a_model_loads_and_reports_how_far_it_is(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    plan = make_plan(llama_server, chat, tmp_path)
    plan = replace(plan, settings=Settings(context_length=512, parallel_requests=2), flags={"flash-attn": "off"})
    with running(BACKEND, plan) as one:
        one.start()
        one.assert_went_forward()
        reported = [signal for signal in one.signals if isinstance(signal, Fraction)]
        assert (reported[0].value, reported[-1].value) == (0.0, 1.0)
        assert {signal.source for signal in reported} == {Source.REPORTED}
        assert Ready() in one.signals
        assert InForce({"context_length": "512"}) in one.signals
        assert one.launch.in_force
        status, body = one.answer(one.launch.in_force)
        assert status == 200
        assert one.launch.reader.in_force(body) == {"context_length": "512", "parallel_requests": "2"}
        assert one.stop(1) == (0, 1)


def test_only_who_has_the_key_is_answered(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    with running(BACKEND, make_plan(llama_server, chat, tmp_path)) as one:
        one.start()
        assert one.answer(one.launch.liveness)[0] == 200
        status, body = one.answer(replace(one.launch.question, headers={}))
        assert status == 401
        judged = one.launch.question.judge(status, body)
        assert judged.cause


def test_a_split_model_counts_its_parts(llama_server: Found, models: Path, tmp_path: Path) -> None:
    files = model_files(*parts(models / "tiny-chat-GGUF"))
    with running(BACKEND, make_plan(llama_server, files, tmp_path)) as one:
        one.start()
        one.assert_went_forward()
        assert one.shards[0] == (0, 3)
        assert one.shards[-1] == (3, 3)
        assert one.progress[-1].shards_done == 3


def test_with_a_projector_both_are_loaded(llama_server: Found, models: Path, tmp_path: Path) -> None:
    folder = models / "tiny-chat-GGUF"
    files = model_files(folder / "tiny-chat-F16.gguf", mmproj=folder / "mmproj-tiny-chat-F16.gguf")
    with running(BACKEND, make_plan(llama_server, files, tmp_path)) as one:
        one.start()
        one.assert_went_forward()
        assert "loading the mmproj model" in {progress.detail for progress in one.progress}


@pytest.mark.parametrize(
    ("task", "name", "key"), [(Task.EMBED, "tiny-embed", "data"), (Task.RERANK, "tiny-rerank", "results")]
)
def test_encoders(llama_server: Found, models: Path, tmp_path: Path, task: Task, name: str, key: str) -> None:
    files = model_files(models / f"{name}-GGUF" / f"{name}-F16.gguf", architecture="bert")
    with running(BACKEND, make_plan(llama_server, files, tmp_path, task)) as one:
        one.start()
        status, body = one.answer(one.launch.question)
        assert (status, len(json.loads(body)[key])) == (200, 1)


def test_a_question_for_another_task_is_never_answered(
    llama_server: Found, models: Path, tmp_path: Path, chat: ModelFiles
) -> None:
    embedding = BACKEND.launch(make_plan(llama_server, chat, tmp_path, Task.EMBED)).question
    with running(BACKEND, make_plan(llama_server, chat, tmp_path)) as one:
        one.start()
        judged = embedding.judge(*one.answer(embedding))
        assert judged.cause
        assert judged.cause.reason is Reason.BACKEND_UNSUITABLE


# Failures, by what they are told as


def failing(found: Found, files: ModelFiles, scratch: Path, *extra: str) -> tuple[Reason, str]:
    with running(BACKEND, make_plan(found, files, scratch), extra=extra) as one:
        cause = one.fail()
        assert one.process.returncode == 1
        return cause.reason, cause.text


def test_a_missing_file(llama_server: Found, tmp_path: Path) -> None:
    reason, text = failing(llama_server, model_files(tmp_path / "gone.gguf"), tmp_path / "scratch")
    assert (reason, "gone.gguf" in text) == (Reason.MODEL_FILE_MISSING, True)


def test_a_missing_part_of_a_split(llama_server: Found, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for part in parts(models / "tiny-chat-GGUF")[:2]:
        shutil.copy(part, folder)
    reason, text = failing(llama_server, model_files(*parts(folder)), tmp_path / "scratch")
    assert (reason, "00003-of-00003" in text) == (Reason.MODEL_FILE_MISSING, True)


def test_the_second_part_given_for_the_first(llama_server: Found, models: Path, tmp_path: Path) -> None:
    reason, text = failing(llama_server, model_files(parts(models / "tiny-chat-GGUF")[1]), tmp_path)
    assert (reason, "first split" in text) == (Reason.MODEL_FILE_INVALID, True)


@pytest.mark.parametrize("kept", [0, 100, 20_000])
def test_a_truncated_file(llama_server: Found, chat: ModelFiles, tmp_path: Path, kept: int) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(chat.weights[0].read_bytes()[:kept])
    assert failing(llama_server, model_files(short), tmp_path / "scratch")[0] is Reason.MODEL_FILE_INVALID


def test_something_else_than_a_model(llama_server: Found, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"<html>" * 10_000)
    assert failing(llama_server, model_files(other), tmp_path / "scratch")[0] is Reason.MODEL_FILE_INVALID


def test_an_option_it_does_not_have(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    reason, text = failing(llama_server, chat, tmp_path, "--no-mmap-and-more")
    assert (reason, "--no-mmap-and-more" in text) == (Reason.BACKEND_FLAG_REJECTED, True)


def test_a_device_it_does_not_have(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    assert failing(llama_server, chat, tmp_path, "--device", "CUDA7")[0] is Reason.DEVICE_NOT_FOUND


def test_a_port_that_is_taken(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    plan = make_plan(llama_server, chat, tmp_path)
    with socket.create_server(("127.0.0.1", plan.port)), running(BACKEND, plan) as one:
        cause = one.fail()
    assert (cause.reason, str(plan.port) in cause.text) == (Reason.PORT_IN_USE, True)


@pytest.mark.parametrize("context", [4_000_000, 1 << 30])  # fails to allocate, fails to even count
def test_more_context_than_there_is_memory(llama_server: Found, chat: ModelFiles, tmp_path: Path, context: int) -> None:
    limited = ("/bin/sh", "-c", 'ulimit -v 2000000; exec "$0" "$@"', *llama_server.program)
    plan = make_plan(replace(llama_server, program=limited), chat, tmp_path)
    plan = replace(plan, settings=Settings(context_length=context))
    with running(BACKEND, plan, extra=("--fit", "off")) as one:
        assert one.fail().reason is Reason.OUT_OF_MEMORY


def test_somebody_kills_it(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    with running(BACKEND, make_plan(llama_server, chat, tmp_path)) as one:
        one.start()
        one.process.kill()
        cause = one.fail()
    assert (cause.reason, "SIGKILL" in cause.text) == (Reason.BACKEND_EXITED, True)


# Its end


@contextmanager
def streaming(one: Running) -> Iterator[None]:
    """A client in the middle of an answer that it does not read on."""
    connection = http.client.HTTPConnection(one.launch.host, one.launch.port, timeout=30)
    wanted = {"prompt": "Hi", "max_tokens": 100_000, "stream": True, "ignore_eos": True}
    with closing(connection):
        connection.request("POST", "/v1/completions", json.dumps(wanted), dict(one.launch.question.headers))
        with closing(connection.getresponse()) as answer:
            assert answer.read(64)
            yield


def test_a_stream_does_not_hold_it_up(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    with running(BACKEND, make_plan(llama_server, chat, tmp_path)) as one:
        one.start()
        with streaming(one):
            # On a busy machine the second SIGTERM may come before the first has done its work; what counts is that
            # nothing of the ladder beyond them, and least of all SIGKILL, is needed.
            code, _ = one.stop(2)
    assert code != -signal.SIGKILL


def test_untold_it_needs_a_second_signal(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    with running(BACKEND, make_plan(llama_server, chat, tmp_path)) as one:
        one.start()
        assert one.stop(2, farewell=False) == (1, 2)


def test_it_outlives_who_started_it(llama_server: Found, chat: ModelFiles, tmp_path: Path) -> None:
    # All our descriptors of its input are closed: it holds it open itself, and reads no end.
    with running(BACKEND, make_plan(llama_server, chat, tmp_path)) as one:
        one.start()
        ours = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
        assert str(one.fifo) not in ours
        assert one.answer(one.launch.question)[0] == 200


# Its options


def test_every_option_that_is_always_given_is_known_to_this_build(llama_server: Found, chat: ModelFiles) -> None:
    assert llama_server.flags
    given = [word for word in BACKEND.launch(make_plan(llama_server, chat, chat.root)).argv if word.startswith("--")]
    assert not set(given) - llama_server.flags


def test_most_of_the_allowed_options_are_known_to_this_build(llama_server: Found) -> None:
    # Names of newer and older builds are on the list, too; those that this one lacks are refused before it is started.
    assert llama_server.flags
    assert {f"--{name}" for name in FLAGS} - llama_server.flags <= {"--mlock", "--no-mmap"}
