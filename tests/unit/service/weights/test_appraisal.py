"""What headers and configuration add to variants."""

from slipway_service.weights.appraisal import MAX_HEADERS, ConfigSummary, appraise, header_sources, summarise
from slipway_service.weights.memory import CacheShape, DeviceMemory
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.task import Task
from slipway_service.weights.variants import find_variants

from tests.unit.service.weights.repo_files import files

SHAPE = CacheShape(kv_heads=(8,) * 4, key_length=64, value_length=64)
FACTS = ModelFacts(architecture="llama", context_length=4096, parameters=8000, cache=SHAPE, chat_template=True)


def test_one_header_speaks_for_all_quantisations_of_a_model() -> None:
    listed = files("m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf", "m-Q8_0.gguf", "m-Q2_K.gguf")
    sources = header_sources(find_variants(listed))
    assert {model: file.path for model, file in sources.items()} == {"m": "m-Q8_0.gguf"}  # whole, unlike the default


def test_the_first_part_where_all_are_split() -> None:
    listed = files("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")
    assert [file.path for file in header_sources(find_variants(listed)).values()] == ["m-Q8_0-00001-of-00002.gguf"]


def test_few_headers_are_read_of_many_models_and_the_defaults_among_them() -> None:
    listed = files(*(f"m{n}-Q8_0.gguf" for n in range(100)), "z-Q4_K_M.gguf", "broken-Q4_K_M-00002-of-00002.gguf")
    sources = header_sources(find_variants(listed))
    assert len(sources) == MAX_HEADERS
    assert next(iter(sources)) == "z"


def test_appraised_ggufs() -> None:
    listed = files("m-Q4_K_M.gguf:5000", "m-F16.gguf:16000", "other-Q4_0.gguf:9", "mmproj-F16.gguf:700")
    device = DeviceMemory(device_id="cpu", free_bytes=1 << 40)
    appraised = appraise(
        find_variants(listed), ggufs={"m": FACTS}, config=ModelFacts(), context_tokens=1000, devices=[device]
    )
    found = {variant.name: variant for variant in appraised}
    assert found["Q4_K_M"].bits_per_weight == 5.0
    assert found["F16"].bits_per_weight == 16.0
    memory = found["Q4_K_M"].memory
    assert memory is not None
    assert memory.weights_bytes == 5700
    assert memory.kv_bytes_per_1k_tokens == SHAPE.bytes_per_token * 1000
    assert memory.context_tokens == 1000
    assert [fit.fits for fit in found["Q4_K_M"].fits] == [True]
    assert found["Q4_K_M"].default
    other = found["Q4_0"].memory  # its header was not read
    assert other is not None
    assert other.kv_bytes_per_1k_tokens is None
    assert found["Q4_0"].bits_per_weight == 4.55


def test_context_is_what_the_model_was_trained_for() -> None:
    (variant,) = appraise(find_variants(files("m-Q4_K_M.gguf")), ggufs={"m": FACTS}, config=ModelFacts())
    assert variant.memory is not None
    assert variant.memory.context_tokens == 4096


def test_appraised_safetensors_take_type_and_bits_from_the_configuration() -> None:
    listed = files("model.safetensors:16000")
    plain = ModelFacts(parameters=8000, cache=SHAPE, quantization="BF16")
    (variant,) = appraise(find_variants(listed), ggufs={}, config=plain)
    assert (variant.quantization, variant.bits_per_weight) == ("BF16", 16.0)
    packed = ModelFacts(parameters=1000, quantization="AWQ", bits_per_weight=4.0)
    (variant,) = appraise(find_variants(listed), ggufs={}, config=packed)
    assert (variant.quantization, variant.bits_per_weight) == ("AWQ", 4.0)


def test_nothing_is_promised_of_what_lacks_parts() -> None:
    (variant,) = appraise(
        find_variants(files("m-Q4_K_M-00001-of-00002.gguf")),
        ggufs={"m": FACTS},
        config=ModelFacts(),
        devices=[DeviceMemory(device_id="cpu", free_bytes=1)],
    )
    assert variant.memory is None
    assert variant.fits == ()


def test_a_summary_takes_what_the_first_does_not_tell_from_the_next() -> None:
    config = ModelFacts(architecture="LlamaForCausalLM", model_type="llama", remote_code=True)
    assert summarise([config, FACTS], name="org/m") == ConfigSummary(
        architecture="LlamaForCausalLM",
        model_type="llama",
        context_length=4096,
        parameters=8000,
        task=Task.GENERATE,
        chat_template=True,
        remote_code=True,
    )
    assert summarise([], paths={"chat_template.jinja"}, parameters=5) == ConfigSummary(chat_template=True, parameters=5)
    assert summarise([ModelFacts(chat_template=False)]).chat_template is False
