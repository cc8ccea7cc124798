"""How people spell quantisations."""

import pytest
from slipway_service.weights.quantization import find_label, nominal_bits, preference


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M", "Q4_K_M"),
        ("llama-2-7b.Q5_K_S", "Q5_K_S"),
        ("qwen2.5-7b-instruct-q4_k_m", "Q4_K_M"),
        ("Meta-Llama-3.1-8B-Instruct-IQ2_XXS", "IQ2_XXS"),
        ("gemma-3-27b-it-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("DeepSeek-R1-UD-IQ1_S", "UD-IQ1_S"),
        ("Model.i1-Q4_K_M", "Q4_K_M"),
        ("model-Q6_K_L", "Q6_K_L"),
        ("model_Q8_0", "Q8_0"),
        ("ggml-model-q4_0", "Q4_0"),
        ("ggml-model-f16", "F16"),
        ("Phi-3-mini-4k-instruct-fp16", "F16"),
        ("model-BF16", "BF16"),
        ("gpt-oss-20b-MXFP4", "MXFP4"),
        ("gpt-oss-20b-MXFP4_MOE", "MXFP4_MOE"),
        ("model-Q4_0_4_4", "Q4_0_4_4"),
        ("model-IQ4_NL", "IQ4_NL"),
        ("bitnet-TQ2_0", "TQ2_0"),
        ("model-IQ4_KSS", "IQ4_KSS"),
        ("model-Q4_0_R8", "Q4_0_R8"),
        ("model-q4km", "Q4_K_M"),
        ("model-q3k", "Q3_K"),
        ("model-q8", "Q8"),
        ("model-Q4_K_M-imat", "Q4_K_M"),
        ("Model.f16.Q4_K", "Q4_K"),
        ("Q4_K_M", "Q4_K_M"),
    ],
)
def test_labels(name: str, label: str) -> None:
    found = find_label(name)
    assert found is not None
    assert found[0] == label


@pytest.mark.parametrize(
    "name", ["llama-3.2-1b", "model", "Q", "q4x_model", "BQ4_K_M", "Mixtral-8x7B", "f160", "Qwen2", "Q9_K_M", ""]
)
def test_no_labels(name: str) -> None:
    assert find_label(name) is None


def test_bits_grow_with_the_label() -> None:
    labels = ["IQ1_S", "IQ2_XXS", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "F32"]
    bits = [nominal_bits(label) or 0 for label in labels]
    assert bits == sorted(bits)
    assert bits[0] > 0
    assert nominal_bits("UD-Q4_K_XL") == pytest.approx(4.7)
    assert nominal_bits("whatever") is None


def test_four_bits_done_well_come_first() -> None:
    labels = ["F32", "IQ1_S", "Q2_K", "Q3_K_M", "Q8_0", "Q4_0", "Q4_K_S", "UD-Q4_K_XL", "Q4_K_M", "", "Q6_K", "BF16"]
    assert sorted(labels, key=preference) == [
        "Q4_K_M",
        "UD-Q4_K_XL",
        "Q4_K_S",
        "Q4_0",
        "Q6_K",
        "Q8_0",
        "Q3_K_M",
        "BF16",
        "F32",
        "Q2_K",
        "IQ1_S",
        "",
    ]
