"""Real requests of OpenAI-compatible servers: the smallest question of each task."""

import json
from collections.abc import Callable, Mapping

from slipway_service.fault import Reason

from slipway_runner.backends.base import HttpQuestion, Judgement, Task, judge_status, post
from slipway_runner.progress.signals import Cause

LIVENESS_SECONDS = 5.0
"""For a health check. One that takes longer is no answer: backends do it between two batches of work."""

QUESTION_SECONDS = 120.0
"""For the first real request: kernels are compiled, and weights paged in, when it comes."""

PATHS: Mapping[Task, Mapping[str, str]] = {
    Task.GENERATE: {
        "/v1/chat/completions": "/v1/chat/completions",
        "/v1/completions": "/v1/completions",
    },
    Task.EMBED: {"/v1/embeddings": "/v1/embeddings"},
    Task.RERANK: {"/v1/rerank": "/v1/rerank"},
}


def bearer(api_key: str | None) -> Mapping[str, str]:
    """Return the header that carries the key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def liveness(path: str, judge: Callable[[int, bytes], Judgement] = judge_status) -> HttpQuestion:
    """Return the request that tells whether the server is there; it needs no key."""
    return HttpQuestion(method="GET", path=path, timeout=LIVENESS_SECONDS, judge=judge)


def question(task: Task, model: str, api_key: str | None, paths: Mapping[str, str]) -> HttpQuestion:
    """Return the smallest real request of a task: one token, one vector, or one score."""
    gateway_path, body = _QUESTIONS[task]
    return post(
        paths[gateway_path],
        {"model": model, **body},
        headers=bearer(api_key),
        timeout=QUESTION_SECONDS,
        judge=judge_answer,
    )


def judge_answer(status: int, body: bytes) -> Judgement:
    """Judge the answer to a real request: 200 with a JSON object that is no error."""
    if status == 503:
        return judge_status(status, body)
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if status == 200 and isinstance(document, dict) and not document.get("error"):
        return Judgement(good=True)
    why = f"HTTP {status}: {body[:300].decode(errors='replace')}"
    if status in _NEVER:
        return Judgement(good=False, why=why, cause=Cause(Reason.BACKEND_UNSUITABLE, f"It refuses the request: {why}"))
    return Judgement(good=False, why=why)


# Not this model, not this task, not this request: repeating it changes nothing. 401 would be a foreign server's.
_NEVER = (400, 401, 404, 405, 422, 501)

_QUESTIONS: Mapping[Task, tuple[str, Mapping[str, object]]] = {
    # One token is enough to have gone through every layer. Not a chat: a base model has no template for one.
    Task.GENERATE: ("/v1/completions", {"prompt": "Hi", "max_tokens": 1, "temperature": 0}),
    Task.EMBED: ("/v1/embeddings", {"input": ["Hi"]}),
    Task.RERANK: ("/v1/rerank", {"query": "Hi", "documents": ["Hi"]}),
}
