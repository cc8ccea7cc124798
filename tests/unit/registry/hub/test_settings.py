"""The environment decides where the Hub is and whether it is asked."""

import pytest
from slipway_registry.hub.settings import DEFAULT_ENDPOINT, HubSettings, offline_because, parse_endpoint


@pytest.mark.parametrize(
    ("environment", "because"),
    [
        ({}, ""),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1"),
        ({"HF_HUB_OFFLINE": "yes"}, "HF_HUB_OFFLINE=yes"),
        ({"HF_HUB_OFFLINE": "0"}, ""),
        ({"TRANSFORMERS_OFFLINE": "true"}, "TRANSFORMERS_OFFLINE=true"),
        ({"HF_ALLOW_REMOTE_MODELS": "false"}, "HF_ALLOW_REMOTE_MODELS=false"),
        ({"HF_ALLOW_REMOTE_MODELS": "0"}, "HF_ALLOW_REMOTE_MODELS=0"),
        ({"HF_ALLOW_REMOTE_MODELS": "true"}, ""),
        ({"HF_ALLOW_REMOTE_MODELS": ""}, ""),
    ],
)
def test_offline(environment: dict[str, str], because: str) -> None:
    assert offline_because(environment) == because
    assert HubSettings.from_environment(environment).offline == because


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("https://huggingface.co", "https://huggingface.co"),
        ("https://HuggingFace.co/", "https://huggingface.co"),
        ("https://hub.internal:443", "https://hub.internal"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://mirror.example/hf/", "https://mirror.example/hf"),
    ],
)
def test_endpoints(text: str, endpoint: str) -> None:
    assert HubSettings.from_environment({"HF_ENDPOINT": text}).endpoint == endpoint


@pytest.mark.parametrize(
    "text",
    ["huggingface.co", "ftp://x", "https://", "https://user:secret@x", "https://x?a=b", "https://x#y", "http://x:y"],
)
def test_no_endpoints(text: str) -> None:
    with pytest.raises(ValueError, match="give the Hub's endpoint") as caught:
        parse_endpoint(text)
    assert "secret" not in str(caught.value)


def test_the_default_endpoint() -> None:
    assert HubSettings.from_environment({"HF_ENDPOINT": ""}).endpoint == HubSettings().endpoint == DEFAULT_ENDPOINT
