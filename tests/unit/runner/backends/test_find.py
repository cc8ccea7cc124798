"""Finding backends on a host."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from slipway_runner.backends.base import Found, Host, NotUsable, Ran
from slipway_runner.backends.command import INFINITY
from slipway_runner.backends.host import run_program
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.programs import distributions, torch_kinds
from slipway_runner.backends.select import SHIPPED, find_all
from slipway_runner.backends.sglang import Sglang
from slipway_runner.backends.transformers_serve import TransformersServe
from slipway_runner.backends.vllm import Vllm
from slipway_runner.devices.device import DeviceKind

CPU, CUDA, ROCM, VULKAN = DeviceKind.CPU, DeviceKind.CUDA, DeviceKind.ROCM, DeviceKind.VULKAN

HELP = """
-fa,   --flash-attn [on|off|auto]       set Flash Attention use (see also --no-such-thing-here)
--no-ui, --no-webui                     whether to disable the Web UI
"""


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def virtual_environment(root: Path, name: str, **installed: str) -> Path:
    for distribution, version in installed.items():
        info = root / "lib" / "python3.11" / "site-packages" / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
    return program(root / "bin" / name)


class Answers:
    """Runs nothing: answers for llama-server as told."""

    def __init__(self, **by_option: str) -> None:
        self._answers = {f"--{name.replace('_', '-')}": text for name, text in by_option.items()}
        self.asked: list[str] = []

    def __call__(self, argv: tuple[str, ...], *, seconds: float, env: Mapping[str, str]) -> Ran:
        self.asked.append(argv[0])
        text = self._answers.get(argv[1])
        if text is None:
            return Ran(exit_code=1, stdout="", stderr="cannot run here")
        return Ran(exit_code=0, stdout=text, stderr="")


def test_llama_server_is_asked_what_it_is_and_has(tmp_path: Path) -> None:
    path = program(tmp_path / "llama-server")
    devices = (
        "Available devices:\n  CUDA0: NVIDIA H200 (1 MiB, 1 MiB free)\n  Vulkan0: NVIDIA H200 (1 MiB, 1 MiB free)\n"
    )
    run = Answers(version="version: 4242 (abcdef0)\nbuilt with cc", help=HELP, list_devices=devices)
    found = LlamaServer().find(Host(search_path=(tmp_path,), run=run))
    assert isinstance(found, Found)
    assert (found.version, found.program) == ("4242 (abcdef0)", (str(path),))
    assert found.kinds == {CPU, CUDA, VULKAN}
    assert found.flags is not None
    assert {"--flash-attn", "--no-webui", "--no-ui"} <= found.flags


def test_one_that_does_not_run_is_passed_over_for_the_next(tmp_path: Path) -> None:
    broken, good = tmp_path / "broken", tmp_path / "installed"
    program(broken / "llama-server")
    program(good / "llama-server" / "bin" / "llama-server")
    run = Answers(version="version: 1")

    def only_the_installed(argv: tuple[str, ...], *, seconds: float, env: Mapping[str, str]) -> Ran:
        if argv[0].startswith(str(broken)):
            return Ran(exit_code=127, stdout="", stderr="libcuda.so.1: cannot open shared object file")
        return run(argv, seconds=seconds, env=env)

    found = LlamaServer().find(Host(search_path=(broken,), installed=good, run=only_the_installed))
    assert isinstance(found, Found)
    assert found.program[0].startswith(str(good))
    missing = LlamaServer().find(Host(search_path=(broken,), run=only_the_installed))
    assert isinstance(missing, NotUsable)
    assert "libcuda.so.1" in missing.why


def test_the_configured_program_is_the_only_one_looked_at(tmp_path: Path) -> None:
    program(tmp_path / "llama-server")
    run = Answers(version="version: 1")
    host = Host(search_path=(tmp_path,), programs={"llama-server": Path("/opt/mine")}, run=run)
    assert isinstance(LlamaServer().find(host), Found)
    assert set(run.asked) == {"/opt/mine"}


def test_what_is_not_there_says_how_to_have_it(tmp_path: Path) -> None:
    found = find_all(SHIPPED, Host(search_path=(tmp_path,), run=Answers()))
    assert {name: isinstance(one, NotUsable) for name, one in found.items()} == {one.name: True for one in SHIPPED}
    assert all(isinstance(one, NotUsable) and one.why for one in found.values())


def test_transformers_is_known_by_what_is_installed_beside_it(tmp_path: Path) -> None:
    installed = {"torch": "2.13.0+cpu", "accelerate": "1", "fastapi": "1", "uvicorn": "1"}
    path = virtual_environment(tmp_path, "transformers", transformers="5.23.0", **installed)
    run = Answers()
    found = TransformersServe().find(Host(search_path=(path.parent,), run=run))
    assert found == Found(
        backend="transformers", version="5.23.0", program=(str(path), "serve"), kinds=frozenset({CPU})
    )
    assert not run.asked


@pytest.mark.parametrize(
    ("installed", "why"),
    [
        ({"transformers": "5.23.0", "torch": "2"}, "lacks accelerate, fastapi, uvicorn"),
        ({"transformers": "4.57.6", "torch": "2", "accelerate": "1", "fastapi": "1", "uvicorn": "1"}, "is 4.57.6"),
    ],
)
def test_a_transformers_that_cannot_serve_says_why(tmp_path: Path, installed: dict[str, str], why: str) -> None:
    path = virtual_environment(tmp_path, "transformers", **installed)
    found = TransformersServe().find(Host(search_path=(path.parent,), run=Answers()))
    assert isinstance(found, NotUsable)
    assert why in found.why


@pytest.mark.parametrize(
    ("torch", "kind"),
    [
        ("2.13.0", CUDA),
        ("2.13.0+cu128", CUDA),
        ("2.13.0+rocm6.4", ROCM),
        ("2.13.0+cpu", CPU),
    ],
)
def test_vllm_runs_on_what_its_torch_was_built_for(tmp_path: Path, torch: str, kind: DeviceKind) -> None:
    path = virtual_environment(tmp_path, "vllm", vllm="0.33.0", torch=torch)
    found = Vllm().find(Host(search_path=(path.parent,), run=Answers()))
    assert isinstance(found, Found)
    assert (found.version, found.kinds) == ("0.33.0", frozenset({kind}))


def test_sglang_is_run_by_the_python_beside_it(tmp_path: Path) -> None:
    path = virtual_environment(tmp_path, "sglang", sglang="0.5.23", torch="2.13.0")
    found = Sglang().find(Host(search_path=(path.parent,), run=Answers()))
    assert isinstance(found, Found)
    assert found.program == (str(tmp_path / "bin" / "python"), "-m", "sglang.launch_server")


def test_a_command_is_found_by_its_name(tmp_path: Path) -> None:
    path = virtual_environment(tmp_path, "infinity_emb", infinity_emb="0.0.78")
    found = INFINITY.find(Host(search_path=(path.parent,), run=Answers()))
    assert isinstance(found, Found)
    assert (found.version, found.program) == ("0.0.78", (str(path),))


def test_a_link_to_a_program_leads_to_what_is_beside_it(tmp_path: Path) -> None:
    path = virtual_environment(tmp_path / "venv", "vllm", vllm="1")
    link = tmp_path / "bin" / "vllm"
    link.parent.mkdir()
    link.symlink_to(path)
    assert distributions(link) == {"vllm": "1"}


@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        ("2.1+cpu", frozenset({CPU})),
        ("2.1+cpu.cxx11.abi", frozenset({CPU})),
        ("2.1", frozenset({CPU, CUDA})),
        ("2.1+rocm6.2", frozenset({CPU, ROCM})),
    ],
)
def test_kinds_of_torch(version: str, kinds: list[DeviceKind]) -> None:
    assert torch_kinds(version) == frozenset(kinds)


class TestRunProgram:
    def test_it_returns_what_a_program_says(self) -> None:
        ran = run_program((sys.executable, "-c", "print('out'); exit('err')"), seconds=30, env={})
        assert ran == Ran(exit_code=1, stdout="out\n", stderr="err\n")

    def test_nothing_of_our_environment_reaches_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "ours")
        ran = run_program((sys.executable, "-c", "import os; print(*os.environ)"), seconds=30, env={"MINE": "1"})
        assert {"PATH", "LANG", "MINE"} <= set(ran.stdout.split())
        assert "SECRET" not in ran.stdout

    def test_a_program_that_is_not_there_is_no_exception(self) -> None:
        assert run_program(("/no/such/program",), seconds=1, env={}).exit_code is None

    def test_one_that_takes_too_long_is_ended_with_its_children(self) -> None:
        # The child keeps our standard output open: only its end lets us return.
        child = "import time; time.sleep(600)"
        parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        ran = run_program((sys.executable, "-c", parent), seconds=0.5, env={})
        assert ran == Ran(exit_code=None, stdout="", stderr="no answer within 0.5 s")
