"""What a backend answers while it loads."""

import anyio
import pytest
from aiohttp import web
from slipway_runner.backends.base import HttpQuestion
from slipway_runner.backends.transformers_serve import TransformersServe
from slipway_runner.models.ask import Asker

from tests.unit.runner.backends.plans import found, plan, safetensors

pytestmark = pytest.mark.anyio


async def test_a_load_may_be_silent_for_longer_than_any_question_since_the_stall_timer_ends_it() -> None:
    async def load(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"data: begun\n\n")
        await anyio.sleep(0.3)
        await answer.write(b"data: done\n\n")
        return answer

    app = web.Application()
    app.router.add_post("/load", load)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        launch = TransformersServe().launch(plan(found("transformers"), safetensors(), port=runner.addresses[0][1]))
        question = HttpQuestion(method="POST", path="/load", timeout=0.1)
        with anyio.fail_after(30):
            async with Asker() as asker:
                assert [data async for data in asker.events(launch, question)] == ["begun", "done"]
    finally:
        await runner.cleanup()
