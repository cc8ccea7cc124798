"""What callers may add, and what they may not."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from slipway_runner.backends import llama_server, python_server, sglang, transformers_serve, vllm
from slipway_runner.backends.flags import (
    Rules,
    checked_environment,
    choice,
    flag_arguments,
    integer,
    number,
    pattern,
    switch,
)
from slipway_service.fault import Fault, Reason

RULES: Rules = {"count": integer(1, 8), "kind": choice("a", "b"), "fast": switch}

TABLES: Mapping[str, tuple[Rules, Rules]] = {
    "llama-server": (llama_server.FLAGS, llama_server.ENVIRONMENT),
    "transformers": (transformers_serve.FLAGS, python_server.ENVIRONMENT),
    "vllm": (vllm.FLAGS, vllm.VARIABLES),
    "sglang": (sglang.FLAGS, python_server.ENVIRONMENT),
}


def refusal(given: Mapping[str, str], **more: Any) -> Fault:
    with pytest.raises(Fault) as refused:
        flag_arguments(RULES, given, backend="x", **more)
    assert refused.value.reason is Reason.FLAG_NOT_ALLOWED
    return refused.value


def test_what_is_allowed_becomes_arguments() -> None:
    given = {"kind": "b", "count": "3", "fast": ""}
    assert flag_arguments(RULES, given, backend="x") == ("--count", "3", "--fast", "--kind", "b")
    assert flag_arguments(RULES, {"fast": "false"}, backend="x") == ()


@pytest.mark.parametrize(
    "name",
    ["coun", "COUNT", "-count", "--count", "count=3", "count 3", " count", "other", "", "c", "--", "@file"],
)
def test_only_exact_names(name: str) -> None:
    (wrong,) = refusal({name: "3"}).fields
    assert wrong.field == f"spec.flags[{name}]"
    assert "count, fast, kind" in wrong.description


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = refusal({"count": "9", "kind": "c", "fast": "yes", "other": ""}).fields
    assert {entry.field: entry.description for entry in wrong} == {
        "spec.flags[count]": "the value must be a whole number from 1 to 8",
        "spec.flags[fast]": 'the value must be empty or "true" to give it, "false" to leave it out',
        "spec.flags[kind]": "the value must be one of a, b",
        "spec.flags[other]": "x takes count, fast, kind",
    }


def test_what_the_installed_version_does_not_have_is_refused() -> None:
    known = frozenset({"--count"})
    assert flag_arguments(RULES, {"count": "1"}, backend="x", known=known) == ("--count", "1")
    (wrong,) = refusal({"fast": ""}, known=known).fields
    assert wrong.description == "the x that is installed here does not have it"


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            integer(-1, 10),
            ["-1", "0", "10"],
            ["", "-2", "11", "1.0", "1e1", " 1", "\N{ARABIC-INDIC DIGIT ONE}", "0x1", "9" * 30],
        ),
        (number(0, 1), ["0", "0.5", "1"], ["", "-0.1", "1.1", "nan", "inf", "1e-3", ".5", "0.5 "]),
        (choice("on", "off"), ["on", "off"], ["", "ON", "o", "on "]),
        (pattern("[a-z]+", "letters"), ["abc"], ["", "a b", "a\n", "a/b", "ä"]),
        (switch, ["", "true", "false"], ["1", "True", "yes", "--other"]),
    ],
)
def test_values(check: Any, good: list[str], bad: list[str]) -> None:
    assert [check(value) for value in good] == [None] * len(good)
    assert all(check(value) for value in bad)


HARMFUL = [
    *(
        "/etc/passwd",
        "../x",
        "~/x",
        "file:///x",
        "http://host/x",
        "{}",
        '{"a": 1}',
        "--port",
        "-",
        "a b",
        "$(x)",
        "a;b",
    ),
    *("a\x00b", "x" * 5000, "org/name"),
]


@pytest.mark.parametrize("backend", TABLES)
def test_no_option_takes_a_path_a_url_or_another_option(backend: str) -> None:
    for table in TABLES[backend]:
        for name, check in table.items():
            taken = [value for value in HARMFUL if check(value) is None]
            assert not taken, (name, taken)


# Options that read files, run code, reach other hosts, open the server to others, or that the runner itself gives.
FORBIDDEN = {
    "llama-server": "--model --model-url --hf-repo --hf-file --hf-token --lora --mmproj --mmproj-url --grammar-file "
    "--chat-template-file --chat-template --api-key --api-key-file --host --port --path --ssl-key-file --log-file "
    "--slot-save-path --models-dir --models-preset --rpc --tools --mcp-servers-config --override-kv --media-path "
    "--alias --ctx-size --gpu-layers --device --parallel --embeddings --reranking --prompt-cache --lookup-cache-static "
    "--ui-mcp-proxy --reuse-port --cors-origins --props",
    "transformers": "--host --port --enable-cors --trust-remote-code --decision-config --chat-template-kwargs --device "
    "--dtype --model-timeout --log-level --non-blocking",
    "vllm": "--model --tokenizer --config --host --port --uds --api-key --served-model-name --trust-remote-code "
    "--download-dir --chat-template --lora-modules --enable-lora --hf-overrides --hf-config-path --middleware "
    "--ssl-keyfile --allowed-local-media-path --allowed-media-domains --tool-parser-plugin --reasoning-parser-plugin "
    "--worker-cls --worker-extension-cls --model-loader-extra-config --logits-processors --io-processor-plugin "
    "--kv-transfer-config --compilation-config --root-path --allowed-origins --max-model-len --dtype",
    "sglang": "--config --model-path --tokenizer-path --host --port --api-key --admin-api-key --trust-remote-code "
    "--chat-template --download-dir --lora-paths --json-model-override-args --log-requests --dist-init-addr "
    "--nccl-port --speculative-draft-model-path --custom-sigquit-handler --decrypted-config-file",
}


@pytest.mark.parametrize("backend", TABLES)
def test_what_could_do_harm_is_on_no_list(backend: str) -> None:
    forbidden = {option.removeprefix("--") for option in FORBIDDEN[backend].split()}
    assert not forbidden & set(TABLES[backend][0])


@pytest.mark.parametrize("backend", TABLES)
def test_all_options_are_long_ones_without_their_dashes(backend: str) -> None:
    assert all(re.fullmatch("[a-z]+(-[a-z0-9]+)*", name) for name in TABLES[backend][0])


@pytest.mark.parametrize(
    "name", ["PATH", "LD_PRELOAD", "PYTHONPATH", "HF_TOKEN", "HF_HOME", "HOME", "VLLM_PLUGINS", ""]
)
@pytest.mark.parametrize("backend", TABLES)
def test_variables_that_steer_programs_are_refused(backend: str, name: str) -> None:
    with pytest.raises(Fault) as refused:
        checked_environment(TABLES[backend][1], {name: "1"}, backend=backend)
    assert refused.value.reason is Reason.ENVIRONMENT_NOT_ALLOWED
    assert [entry.field for entry in refused.value.fields] == [f"spec.environment[{name}]"]


def test_variables_with_good_values_are_passed() -> None:
    given = {"OMP_NUM_THREADS": "4", "NCCL_DEBUG": "WARN"}
    assert checked_environment(python_server.ENVIRONMENT, given, backend="vllm") == given
