"""What is wrong with a load is said by LoadModel itself, with the field; nothing is fetched or started for it."""

from typing import Any

import pytest
from slipway.runner.v1.model_pb2 import ModelSpec, RepoSource
from slipway_client import Runner, SlipwayError

from tests.e2e.stack import Stack

pytestmark = pytest.mark.anyio

CHAT = RepoSource(repo_id="slipway-demo/nano-chat-GGUF")


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"flags": {"model": "/etc/passwd"}}, "FLAG_NOT_ALLOWED", "spec.flags[model]"),
        ({"flags": {"rope-scaling": "bent"}}, "FLAG_NOT_ALLOWED", "spec.flags[rope-scaling]"),
        ({"environment": {"LD_PRELOAD": "/x.so"}}, "ENVIRONMENT_NOT_ALLOWED", "spec.environment[LD_PRELOAD]"),
        ({"settings": {"dtype": "float16"}}, "INVALID_FIELDS", "spec.settings.dtype"),
        ({"settings": {"device": "cuda"}}, "DEVICE_NOT_FOUND", "spec.settings.device"),
        ({"devices": ["cpu", "GPU-none"]}, "DEVICE_NOT_FOUND", "spec.devices[1]"),
        ({"variant": "Q3_K_M"}, "VARIANT_NOT_FOUND", "spec.variant"),
        ({"file": "none.gguf"}, "VARIANT_NOT_FOUND", "spec.file"),
        ({"repo": None, "path": "/etc/passwd"}, "PATH_NOT_ALLOWED", "spec.path"),
    ],
)
async def test_a_wrong_field_is_named_at_once(stack: Stack, spec: dict[str, Any], reason: str, field: str) -> None:
    async with Runner.connect(stack.runner.address) as runner:
        with pytest.raises(SlipwayError) as refused:
            await runner.load_model(ModelSpec(**{"repo": CHAT, **spec}))
        assert refused.value.reason == reason
        assert [wrong.field for wrong in refused.value.fields] == [field]
        assert await runner.list_models() == []


async def test_a_rehearsal_tells_what_would_be_run_and_has_no_etag(stack: Stack) -> None:
    async with Runner.connect(stack.runner.address) as runner:
        answer = await runner.load_model(ModelSpec(repo=CHAT), validate_only=True)
        assert (answer.model.variant, answer.model.backend) == ("Q4_K_M", "llama-server")
        assert (answer.model.uid, answer.model.etag) == ("", "")
        assert await runner.list_models() == []
