"""Variants of lists of files as they are really uploaded."""

import time

import pytest
from slipway_service.weights.variant import Variant, WeightFormat
from slipway_service.weights.variants import default_of, find_variants, preferred_projector

from tests.unit.service.weights.repo_files import files

BARTOWSKI = [
    *(f"Qwen2.5-7B-Instruct-{label}.gguf" for label in ("IQ2_M", "Q3_K_XL", "Q4_0", "Q4_K_M", "Q6_K_L", "Q8_0", "f16")),
    "Qwen2.5-7B-Instruct.imatrix",
    "Qwen_Qwen2.5-7B-Instruct-imatrix.gguf",
    "README.md",
]
UNSLOTH = [
    "BF16/gemma-3-27b-it-BF16-00001-of-00002.gguf",
    "BF16/gemma-3-27b-it-BF16-00002-of-00002.gguf",
    "gemma-3-27b-it-Q4_K_M.gguf",
    "gemma-3-27b-it-UD-IQ1_S.gguf",
    "gemma-3-27b-it-UD-Q4_K_XL.gguf",
    "imatrix_unsloth.gguf",
    "mmproj-BF16.gguf",
    "mmproj-F16.gguf",
    "mmproj-F32.gguf",
]
THEBLOKE = [f"llama-2-7b-chat.{label}.gguf" for label in ("Q2_K", "Q3_K_S", "Q4_0", "Q4_K_M", "Q5_K_M", "Q8_0")]
MRADERMACHER = [f"Model-v1.5+dpo.i1-{label}.gguf" for label in ("IQ1_S", "IQ3_XXS", "Q4_K_M", "Q6_K")]
OFFICIAL = [
    "qwen2.5-14b-instruct-q4_k_m-00001-of-00003.gguf",
    "qwen2.5-14b-instruct-q4_k_m-00002-of-00003.gguf",
    "qwen2.5-14b-instruct-q4_k_m-00003-of-00003.gguf",
    "qwen2.5-14b-instruct-fp16-00001-of-00001.gguf",
]
FOLDERS = [
    *(f"DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M-0000{n}-of-00003.gguf" for n in (3, 1, 2)),
    *(f"UD-IQ1_S/x-0000{n}-of-00002.gguf" for n in (1, 2)),
    "config.json",
]
SEVERAL = ["base-7b.Q4_K_M.gguf", "base-13b.Q4_K_M.gguf", "base-13b.Q8_0.gguf"]
BY_FOLDER = ["instruct/m-Q4_K_M.gguf", "base/m-Q4_K_M.gguf", "m-Q4_K_M.gguf"]


def names(*paths: str) -> list[str]:
    return [variant.name for variant in find_variants(files(*paths))]


def default(*paths: str) -> Variant:
    (found,) = [variant for variant in find_variants(files(*paths)) if variant.default]
    return found


def by_name(*paths: str) -> dict[str, Variant]:
    return {variant.name: variant for variant in find_variants(files(*paths))}


def paths_of(variant: Variant) -> list[str]:
    return [file.path for file in variant.files]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (BARTOWSKI, ["F16", "IQ2_M", "Q3_K_XL", "Q4_0", "Q4_K_M", "Q6_K_L", "Q8_0"]),
        (UNSLOTH, ["BF16", "Q4_K_M", "UD-IQ1_S", "UD-Q4_K_XL"]),
        (THEBLOKE, ["Q2_K", "Q3_K_S", "Q4_0", "Q4_K_M", "Q5_K_M", "Q8_0"]),
        (MRADERMACHER, ["IQ1_S", "IQ3_XXS", "Q4_K_M", "Q6_K"]),
        (OFFICIAL, ["F16", "Q4_K_M"]),
        (FOLDERS, ["Q4_K_M", "UD-IQ1_S"]),
        (SEVERAL, ["Q8_0", "base-13b/Q4_K_M", "base-7b/Q4_K_M"]),
        (BY_FOLDER, ["Q4_K_M", "base/Q4_K_M", "instruct/Q4_K_M"]),
        (["tiny.gguf", "other.GGUF"], ["other", "tiny"]),
        (["Q4_K_M/a.gguf", "a-Q4_K_M.gguf"], ["Q4_K_M/a", "a-Q4_K_M"]),
        (["a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00001-of-00003.gguf"], ["a-Q8_0-of-2", "a-Q8_0-of-3"]),
        (["a-Q8_0.gguf", "a-Q8_0-00001-of-00001.gguf"], ["a-Q8_0", "a-Q8_0-of-1"]),
        ([".gguf"], ["gguf"]),
        (["a.gguf.part1of2", "ggml-model-q4_0.bin", "README.md"], []),
    ],
    ids=lambda value: value[0] if value else "none",
)
def test_names_of_gguf_variants(paths: list[str], expected: list[str]) -> None:
    assert names(*paths) == expected


def test_parts_are_in_order_whatever_order_they_are_listed_in() -> None:
    found = by_name(*FOLDERS)["Q4_K_M"]
    assert paths_of(found) == [f"DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert found.size_bytes == 3000
    assert not found.missing


def test_a_missing_part_is_noticed_and_never_the_default() -> None:
    found = by_name("m-Q4_K_M-00001-of-00003.gguf", "m-Q4_K_M-00003-of-00003.gguf", "m-Q8_0.gguf")
    assert found["Q4_K_M"].missing == ("m-Q4_K_M-00002-of-00003.gguf",)
    assert found["Q8_0"].default
    assert not find_variants(files("m-Q4_K_M-00002-of-00002.gguf"))[0].default


def test_a_name_that_promises_99999_parts_costs_nothing() -> None:
    many = [f"d{n}/m-Q4_K_M-00001-of-99999.gguf" for n in range(500)]
    found = find_variants(files(*many))
    assert len(found) == 500
    assert all(len(variant.missing) == 8 for variant in found)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (BARTOWSKI, "Q4_K_M"),
        (UNSLOTH, "Q4_K_M"),
        (MRADERMACHER, "Q4_K_M"),
        (FOLDERS, "Q4_K_M"),
        (["a-IQ2_M.gguf", "a-Q3_K_M.gguf", "a-Q8_0.gguf"], "Q8_0"),
        (["a-IQ2_M.gguf", "a-Q3_K_M.gguf"], "Q3_K_M"),
        (["a-Q4_K_S.gguf", "a-Q5_K_M.gguf"], "Q4_K_S"),
        (["a-F16.gguf", "mmproj-Q4_K_M.gguf"], "F16"),
        (BY_FOLDER, "Q4_K_M"),
        (["zz.gguf", "aa.gguf"], "aa"),
        (["model.safetensors", "a-Q4_K_M.gguf"], "safetensors"),
        (["pytorch_model.bin", "a-Q4_K_M.gguf"], "Q4_K_M"),
        (["unet/model.safetensors", "q/a-Q4_K_M.gguf"], "Q4_K_M"),
        (["onnx/model.onnx", "pytorch_model.bin"], "pytorch"),
        (["onnx/model_q4.onnx", "onnx/model.onnx"], "onnx"),
        (["model.fp16.safetensors", "consolidated.safetensors", "model.safetensors"], "safetensors"),
        (["model.fp16.safetensors"], "safetensors-fp16"),
    ],
)
def test_the_default(paths: list[str], expected: str) -> None:
    assert default(*paths).name == expected


def test_a_projector_is_never_a_variant() -> None:
    assert names("mmproj-F16.gguf", "model-mmproj-Q8_0.gguf", "mmproj/vision-F16.gguf") == []


def test_projectors_go_with_every_quantisation_and_16_bit_is_taken() -> None:
    found = by_name(*UNSLOTH)
    for variant in found.values():
        assert [file.path for file in variant.projector_files] == [
            "mmproj-BF16.gguf",
            "mmproj-F16.gguf",
            "mmproj-F32.gguf",
        ]
        chosen = preferred_projector(variant)
        assert chosen is not None
        assert chosen.path == "mmproj-F16.gguf"
    assert found["Q4_K_M"].size_bytes == 1000


def test_the_nearest_projector_goes_with_the_weights() -> None:
    found = by_name("a/m-Q4_K_M.gguf", "a/mmproj.gguf", "b/x/m-Q4_K_M.gguf", "mmproj.gguf")
    assert [file.path for file in found["a/Q4_K_M"].projector_files] == ["a/mmproj.gguf"]
    assert [file.path for file in found["b/x/Q4_K_M"].projector_files] == ["mmproj.gguf"]


def test_quantisations_of_one_model_are_known_as_such() -> None:
    assert {variant.model for variant in find_variants(files(*UNSLOTH))} == {"gemma-3-27b-it"}
    assert {variant.model for variant in find_variants(files(*SEVERAL))} == {"base-7b", "base-13b"}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["model.safetensors", "config.json"], {"safetensors": ["model.safetensors"]}),
        (
            ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"],
            {"safetensors": ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]},
        ),
        (
            ["model.fp16-00001-of-00001.safetensors", "model.safetensors", "model.bf16.safetensors"],
            {
                "safetensors": ["model.safetensors"],
                "safetensors-bf16": ["model.bf16.safetensors"],
                "safetensors-fp16": ["model.fp16-00001-of-00001.safetensors"],
            },
        ),
        (
            ["model-00001-of-00001.fp16.safetensors"],
            {"safetensors-fp16": ["model-00001-of-00001.fp16.safetensors"]},
        ),
        (
            ["model.safetensors", "2_Dense/model.safetensors", "1_Pooling/config.json"],
            {"safetensors": ["model.safetensors", "2_Dense/model.safetensors"]},
        ),
        (["adapter_model.safetensors", "pytorch_lora_weights.safetensors", "x-lora.safetensors"], {}),
        (["optimizer.pt", "training_args.bin", "rng_state_0.pth", "scheduler.pt"], {}),
        (
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"],
            {"pytorch": ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]},
        ),
        (
            ["original/consolidated.01.pth", "original/consolidated.00.pth"],
            {"pytorch-original-consolidated": ["original/consolidated.00.pth", "original/consolidated.01.pth"]},
        ),
        (
            ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data_1"],
            {
                "onnx": ["onnx/model.onnx", "onnx/model.onnx_data"],
                "onnx-q4": ["onnx/model_q4.onnx", "onnx/model_q4.onnx_data_1"],
            },
        ),
        (
            ["onnx/encoder_model_fp16.onnx", "onnx/decoder_model_merged_fp16.onnx", "onnx/encoder_model.onnx"],
            {
                "onnx": ["onnx/encoder_model.onnx"],
                "onnx-fp16": ["onnx/decoder_model_merged_fp16.onnx", "onnx/encoder_model_fp16.onnx"],
            },
        ),
        (["onnx/model_qint8_avx512_vnni.onnx"], {"onnx-qint8_avx512_vnni": ["onnx/model_qint8_avx512_vnni.onnx"]}),
        (
            ["model.safetensors", "model-00001-of-00001.safetensors"],
            {
                "safetensors": ["model.safetensors"],
                "model-00001-of-00001.safetensors": ["model-00001-of-00001.safetensors"],
            },
        ),
    ],
)
def test_sets_of_other_formats(paths: list[str], expected: dict[str, list[str]]) -> None:
    assert {name: paths_of(variant) for name, variant in by_name(*paths).items()} == expected


def test_element_types_are_known_from_names() -> None:
    found = by_name("model.fp16.safetensors", "onnx/model_int8.onnx", "model.safetensors")
    assert (found["safetensors-fp16"].quantization, found["safetensors-fp16"].bits_per_weight) == ("F16", 16.0)
    assert (found["onnx-int8"].quantization, found["onnx-int8"].bits_per_weight) == ("INT8", 8.0)
    assert found["safetensors"].quantization == ""
    assert found["onnx-int8"].format is WeightFormat.ONNX


def test_names_are_unique_across_formats() -> None:
    found = names("onnx.gguf", "model.onnx", "safetensors/pytorch.gguf", "pytorch_model.bin")
    assert len(found) == len(set(found)) == 4


def test_ten_thousand_files_take_no_time_and_lose_nothing() -> None:
    many = files(
        *(f"m{n}/Model-{n}.v1.5+x.Q4_K_M-{part:05d}-of-00010.gguf" for n in range(1000) for part in range(1, 11))
    )
    begin = time.process_time()
    found = find_variants(many)
    assert time.process_time() - begin < 30  # 0.2 s on a laptop; quadratic would be minutes
    assert len(found) == len({variant.name for variant in found}) == 1000
    assert all(len(variant.files) == 10 and not variant.missing for variant in found)


def test_nothing_has_no_default() -> None:
    assert find_variants(()) == ()
    assert default_of(()) is None
