"""NVIDIA's devices through unmodified nvidia-ml-py, on a library of ours that shows what a file says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

GIB = 1 << 30

# A process of its own: which library is loaded is decided once per process. It looks once for each line it reads.
LOOKER = """
import dataclasses, json, sys
from slipway_runner.devices.nvml import Nvml
nvml = Nvml()
for _ in sys.stdin:
    devices = [dataclasses.asdict(device) for device in nvml.devices()]
    print(json.dumps({"devices": devices, "trouble": nvml.trouble}), flush=True)
nvml.close()
"""


class Looker:
    def __init__(self, process: "subprocess.Popen[str]", state: Path) -> None:
        self._process = process
        self._state = state

    def look(self, *lines: str) -> Any:
        self._state.write_text("\n".join(lines) + "\n")
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def devices(self, *lines: str) -> Any:
        seen = self.look(*lines)
        assert seen["trouble"] == ""
        return seen["devices"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    made = folder / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_mock.c")
    subprocess.run(["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", made, source], check=True)
    return folder


@contextmanager
def started(state: Path, environment: dict[str, str]) -> Iterator[Looker]:
    with subprocess.Popen(
        [sys.executable, "-c", LOOKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NVML_MOCK": str(state), **environment},
    ) as process:
        yield Looker(process, state)
    assert process.returncode == 0


@pytest.fixture
def looker(library: Path, tmp_path: Path) -> Iterator[Looker]:
    with started(tmp_path / "state", {"LD_LIBRARY_PATH": str(library)}) as one:
        yield one


DRIVER = "driver 580.95"
FIRST = f"gpu ok GPU-aaaa {80 * GIB} {10 * GIB} 37 NVIDIA H200"
SECOND = f"gpu ok GPU-bbbb {80 * GIB} 0 0 NVIDIA H200"


def test_a_gpu_is_seen_with_all_that_is_known_of_it(looker: Looker) -> None:
    (gpu,) = looker.devices(DRIVER, FIRST, "process 4321 9663676416")
    assert gpu == {
        "uuid": "GPU-aaaa",
        "kind": "cuda",
        "index": 0,
        "name": "NVIDIA H200",
        "memory_total": 80 * GIB,
        "memory_used": 10 * GIB,
        "memory_free": 70 * GIB,
        "utilization": 0.37,
        "driver": "580.95",
        "processes": [{"pid": 4321, "memory_bytes": 9663676416}],
        "mig": False,
        "parent": "",
        "usable": True,
        "why_not": "",
    }


def test_figures_are_those_of_now(looker: Looker) -> None:
    looker.devices(DRIVER, FIRST)
    (gpu,) = looker.devices(DRIVER, f"gpu ok GPU-aaaa {80 * GIB} {60 * GIB} 100 NVIDIA H200")
    assert (gpu["memory_free"], gpu["utilization"]) == (20 * GIB, 1.0)


@pytest.mark.parametrize(
    "then",
    [
        pytest.param((DRIVER, FIRST, SECOND.replace("ok", "lost")), id="fell off the bus"),
        pytest.param((DRIVER, FIRST), id="not counted any more"),
    ],
)
def test_a_gpu_that_vanishes_is_shown_as_lost_and_the_others_as_before(looker: Looker, then: tuple[str, ...]) -> None:
    looker.devices(DRIVER, FIRST, SECOND)
    first, second = looker.devices(*then)
    assert (first["uuid"], first["usable"]) == ("GPU-aaaa", True)
    assert (second["uuid"], second["usable"]) == ("GPU-bbbb", False)
    assert (second["memory_total"], second["memory_free"]) == (80 * GIB, 0)
    assert second["why_not"] == "the driver has lost it"


def test_a_gpu_that_comes_back_can_be_used_again(looker: Looker) -> None:
    looker.devices(DRIVER, FIRST)
    looker.devices(DRIVER, FIRST.replace("ok", "lost"))
    (gpu,) = looker.devices(DRIVER, FIRST)
    assert gpu["usable"]


def test_a_driver_that_goes_away_and_comes_back_is_found_again(looker: Looker) -> None:
    looker.devices(DRIVER, FIRST)
    away = looker.look("")
    assert [gpu["usable"] for gpu in away["devices"]] == [False]
    assert "Driver Not Loaded" in away["trouble"]
    (gpu,) = looker.devices("driver 590.1", FIRST)
    assert (gpu["usable"], gpu["driver"]) == (True, "590.1")


def test_slices_are_devices_and_the_gpu_they_are_cut_from_is_none(looker: Looker) -> None:
    whole, one, two = looker.devices(DRIVER, FIRST, f"mig {40 * GIB} {5 * GIB} MIG-1", f"mig {20 * GIB} 0 MIG-2")
    assert (whole["mig"], whole["usable"]) == (True, False)
    assert "MIG" in whole["why_not"]
    assert [(part["uuid"], part["parent"], part["usable"]) for part in (one, two)] == [
        ("MIG-1", "GPU-aaaa", True),
        ("MIG-2", "GPU-aaaa", True),
    ]
    assert (one["memory_free"], one["utilization"]) == (35 * GIB, None)


def test_a_gpu_without_memory_of_its_own_is_no_failure(looker: Looker) -> None:
    (gpu,) = looker.devices(DRIVER, f"gpu unified GPU-cccc {GIB} 0 5 NVIDIA GB10")
    assert (gpu["memory_total"], gpu["usable"], gpu["utilization"]) == (0, True, 0.05)


def test_without_a_driver_there_are_none_and_nothing_is_wrong(looker: Looker) -> None:
    assert looker.look("") == {"devices": [], "trouble": ""}


def test_with_what_this_host_has_nothing_is_wrong(tmp_path: Path) -> None:
    with started(tmp_path / "state", {}) as looker:
        devices = looker.devices("")
    assert bool(devices) == Path("/dev/nvidiactl").exists()
