"""The real llama-server loads every GGUF of the demo and gives the answer that is built into it."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hub.models.chat import ChatModel
from tests.hub.models.demo import NANO_CHAT, TINY_CHAT, demo_models
from tests.integration.hub.backends import program

_SECONDS = 30.0


@contextmanager
def serving(model: Path, *arguments: str) -> Iterator[str]:
    """The address of a llama-server that has loaded a model."""
    command = [program("llama-server", "llama-server"), "--model", str(model), "--host", "127.0.0.1", "--port", "0"]
    command += ["--ctx-size", "1024", "--parallel", "1", "--threads", "1", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:  # the last line of a load says where it listens
                said.append(line)
                if "listening on " in line:
                    break
            else:
                pytest.fail("".join(said))
            address = said[-1].rpartition("listening on ")[2].strip()
            yield address
        finally:
            process.terminate()
            process.communicate(timeout=_SECONDS)


def post(address: str, path: str, value: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}{path}", data=json.dumps(value).encode(), headers=headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=_SECONDS) as answer:
        return json.load(answer)


def chat(address: str, text: str, tokens: int = 64) -> str:
    value = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    return str(post(address, "/v1/chat/completions", value)["choices"][0]["message"]["content"]).strip()


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("tiny-chat-GGUF/tiny-chat-Q4_K_M.gguf", TINY_CHAT),
        ("tiny-chat-GGUF/tiny-chat-Q8_0.gguf", TINY_CHAT),
        ("tiny-chat-GGUF/tiny-chat-F16.gguf", TINY_CHAT),
        ("tiny-chat-GGUF/tiny-chat-BF16.gguf", TINY_CHAT),
        ("tiny-chat-GGUF/tiny-chat-F32-00001-of-00003.gguf", TINY_CHAT),
        ("nano-chat-GGUF/Q4_K_M/nano-chat-Q4_K_M.gguf", NANO_CHAT),
        ("nano-chat-GGUF/F16/nano-chat-F16-00001-of-00002.gguf", NANO_CHAT),
    ],
)
def test_chat(path: str, model: ChatModel) -> None:
    with serving(demo_models() / path) as address:
        assert chat(address, "Who are you?") == model.sentence
        assert chat(address, "Please count.", tokens=11) == "two three four five six seven eight nine ten one two"


def test_the_projector_loads_beside_the_model() -> None:
    folder = demo_models() / "tiny-chat-GGUF"
    projector = str(folder / "mmproj-tiny-chat-F16.gguf")
    with serving(folder / "tiny-chat-Q4_K_M.gguf", "--mmproj", projector) as address:
        assert chat(address, "Who are you?") == TINY_CHAT.sentence
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{address}/props", timeout=_SECONDS) as answer:
            assert json.load(answer)["modalities"]["vision"] is True


def test_embeddings_are_near_where_words_are_shared() -> None:
    texts = ["the quick brown fox", "a brown fox", "model server registry"]
    with serving(demo_models() / "tiny-embed-GGUF" / "tiny-embed-F16.gguf", "--embedding") as address:
        data = post(address, "/v1/embeddings", {"input": texts})["data"]
    first, near, far = (entry["embedding"] for entry in data)
    near_dot, far_dot = (sum(a * b for a, b in zip(first, other, strict=True)) for other in (near, far))
    assert near_dot > 0.6 > far_dot


def test_the_reranker_prefers_its_word() -> None:
    documents = ["the fox jumps", "slipway loads models", "a cat sleeps in the sun"]
    with serving(demo_models() / "tiny-rerank-GGUF" / "tiny-rerank-F16.gguf", "--reranking") as address:
        results = post(address, "/v1/rerank", {"query": "what is slipway", "documents": documents})["results"]
    assert max(results, key=lambda result: result["relevance_score"])["index"] == 1
