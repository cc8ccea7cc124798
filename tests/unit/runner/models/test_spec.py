from dataclasses import replace
from pathlib import Path

from slipway_runner.backends.base import Settings
from slipway_runner.models.spec import PathSource, RepoSource, Spec, difference

SPEC = Spec(source=RepoSource(repo_id="owner/model-GGUF", revision="0" * 40), variant="Q4_K_M", aliases=("a", "b"))


def test_equal_specs_do_not_differ_and_the_order_of_aliases_does_not_count() -> None:
    assert difference(SPEC, replace(SPEC, aliases=("b", "a"))) == ""


def test_every_difference_is_told() -> None:
    other = replace(
        SPEC,
        variant="Q8_0",
        settings=Settings(context_length=4096),
        flags={"threads": "4"},
        aliases=("c",),
        source=RepoSource(repo_id="owner/model-GGUF", revision="1" * 40),
    )
    told = difference(SPEC, other)
    assert "variant Q4_K_M, asked for Q8_0" in told
    assert "context_length unset, asked for 4096" in told
    assert "flags unset, asked for threads=4" in told
    assert "aliases a,b, asked for c" in told
    assert "asked for owner/model-GGUF@" + "1" * 40 in told


def test_a_setting_is_called_as_the_contract_calls_it() -> None:
    told = difference(SPEC, replace(SPEC, settings=Settings(device_memory_share=0.5)))
    assert told == "gpu_memory_utilization unset, asked for 0.5"


def test_the_order_of_devices_counts() -> None:
    one, other = replace(SPEC, devices=("GPU-1", "GPU-2")), replace(SPEC, devices=("GPU-2", "GPU-1"))
    assert difference(one, other) == "devices GPU-1,GPU-2, asked for GPU-2,GPU-1"


def test_a_model_is_called_by_the_last_part() -> None:
    assert SPEC.default_id == "model-GGUF"
    assert Spec(source=PathSource(path=Path("/models/qwen"))).default_id == "qwen"
