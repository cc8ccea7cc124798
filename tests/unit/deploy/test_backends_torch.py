"""CUDA is seen in pip's plans before anything is fetched, and asked about with its size."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.backends import transformers_serve
from deploy.backends.steps import Steps
from deploy.backends.store import InstallError
from deploy.backends.torch_wheel import Download, content_length, cuda_among, cuda_sentence, downloads
from deploy.backends.transformers_serve import choose
from tests.unit.deploy.fakes import never, script

HERE = Path(__file__).parent


def report(name: str) -> list[Download]:
    return downloads(json.loads((HERE / f"pip_report_{name}.json").read_text()))


def test_cuda_is_recognised_in_pips_report() -> None:
    cuda = cuda_among(report("cuda"))
    names = {wheel.name for wheel in cuda}
    assert len(cuda) == 20
    assert names >= {"torch", "triton", "cuda-toolkit", "nvidia-cublas", "nvidia-cudnn-cu13"}
    assert names.isdisjoint({"sympy", "networkx", "MarkupSafe", "setuptools"})


def test_a_cpu_build_is_no_cuda() -> None:
    assert {wheel.name for wheel in report("cpu")} >= {"torch", "sympy"}
    assert cuda_among(report("cpu")) == []


def test_a_cuda_build_without_companions_is_cuda() -> None:
    assert cuda_among([Download(name="torch", version="2.13.0+cu130", url="")])
    assert not cuda_among([Download(name="torch", version="2.13.0", url="")])


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"a": 2_100_000_000, "b": 400_000_000}, "2 packages, 2.5 GB to download"),
        ({"a": 2_100_000_000}, "2 packages, at least 2.1 GB to download"),
        ({}, "2 packages, gigabytes to download"),
    ],
)
def test_the_question_names_the_size_as_far_as_it_is_known(sizes: dict[str, int], said: str) -> None:
    wheels = [Download(name="torch", version="1", url="a"), Download(name="triton", version="1", url="b")]
    assert said in cuda_sentence(wheels, sizes.get)


@pytest.fixture
def wheel_server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path == "/torch.whl" else 404)
            self.send_header("Content-Length", "526574961")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_sizes_come_from_the_server_of_the_wheel(wheel_server: str) -> None:
    assert content_length(f"{wheel_server}/torch.whl") == 526_574_961
    assert content_length(f"{wheel_server}/gone.whl") is None
    assert content_length("no url") is None


# Stands for an environment's python: `-m pip install --dry-run … --report FILE … REQUIREMENT` with one answer a torch.
FAKE_PIP = """#!/bin/sh
for requirement; do :; done
while [ "$1" != --report ]; do shift; done
case "$requirement" in
  *+cpu) [ -n "{cpu}" ] && cp "{cpu}" "$2" ;;
  *) [ -n "{other}" ] && cp "{other}" "$2" ;;
esac
"""


def fake_pip(tmp_path: Path, *, cpu: str = "", other: str = "") -> Path:
    reports = {
        key: str(HERE / f"pip_report_{name}.json") if name else "" for key, name in (("cpu", cpu), ("other", other))
    }
    return script(tmp_path / "venv/bin/python", FAKE_PIP.format(**reports))


def test_the_cpu_build_is_taken_without_a_question(tmp_path: Path) -> None:
    steps = Steps("transformers", tmp_path / "log", never)
    assert choose(fake_pip(tmp_path, cpu="cpu", other="cuda"), steps)[0].name == "transformers-cpu.txt"


def test_a_torch_without_cuda_needs_no_question(tmp_path: Path) -> None:
    steps = Steps("transformers", tmp_path / "log", never)
    assert choose(fake_pip(tmp_path, other="cpu"), steps)[0].name == "transformers-any.txt"


def test_cuda_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_serve, "content_length", lambda url: 125_000_000)
    asked: list[str] = []
    pins, torch = choose(fake_pip(tmp_path, other="cuda"), Steps("transformers", tmp_path / "log", asked.append))
    assert pins.name == "transformers-any.txt"
    assert torch == "torch 2.13.0"
    (question,) = asked
    assert "20 packages, 2.5 GB to download" in question
    assert "PIP_EXTRA_INDEX_URL" in question


def test_no_torch_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="log"):
        choose(fake_pip(tmp_path), Steps("transformers", tmp_path / "log", never))
