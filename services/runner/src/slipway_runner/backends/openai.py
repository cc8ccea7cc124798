"""OpenAI-compatible servers: how they are launched, and the smallest real request of each task."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slipway_service.fault import Reason

from slipway_runner.backends.base import (
    HttpQuestion,
    Judgement,
    Launch,
    LaunchPlan,
    Reader,
    Stdin,
    Task,
    judge_status,
    post,
)
from slipway_runner.backends.environment import build_environment
from slipway_runner.backends.flags import Rules
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

ENDPOINT_TASKS: Mapping[str, Task] = {path: task for task, paths in PATHS.items() for path in paths}
"""The task of each path of the gateway."""


def launch(
    plan: LaunchPlan,
    *,
    argv: tuple[str, ...],
    environment: Mapping[str, str],
    rules: Rules,
    reader: Reader,
    model_path: Path | None = None,
    model: str | None = None,
    api_key: str | None = None,
    paths: Mapping[str, str] | None = None,
    health: str = "/health",
    judge_health: Callable[[int, bytes], Judgement] = judge_status,
    question: HttpQuestion | None = None,
    **more: Any,
) -> Launch:
    """Return how to start a server that reads nothing from its standard input, and how to ask it.

    Args:
        plan: what is asked for.
        argv: the command line.
        environment: the adapter's own variables; see `build_environment`.
        rules: the variables that the caller may add.
        reader: of its output.
        model_path: what it is given; None is the directory.
        model: what requests must name; None is the plan's name.
        api_key: the key that it was given; None if it knows none.
        paths: its path for each of the gateway's; None if they are the same.
        health: where it says that it is there, judged by `judge_health`.
        question: its real request; None is OpenAI's smallest.
        more: further members of `Launch`.

    Raises:
        Fault: ENVIRONMENT_NOT_ALLOWED.
    """
    paths = PATHS[plan.task] if paths is None else paths
    model = plan.served_name if model is None else model
    return Launch(
        argv=argv,
        env=build_environment(plan, environment, rules),
        stdin=Stdin.NULL,
        host=plan.host,
        port=plan.port,
        model_path=model_path or plan.files.root,
        model_field=model,
        api_key=api_key,
        liveness=liveness(health, judge=judge_health),
        question=question or smallest_question(plan.task, model, api_key, paths),
        reader=reader,
        paths=paths,
        **more,
    )


def bearer(api_key: str | None) -> Mapping[str, str]:
    """Return the header that carries the key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def liveness(path: str, judge: Callable[[int, bytes], Judgement] = judge_status) -> HttpQuestion:
    """Return the request that tells whether the server is there; it needs no key."""
    return HttpQuestion(method="GET", path=path, timeout=LIVENESS_SECONDS, judge=judge)


def smallest_question(task: Task, model: str, api_key: str | None, paths: Mapping[str, str]) -> HttpQuestion:
    """Return the smallest real request of a task: one token, one vector, or one score."""
    gateway_path, body = _QUESTIONS[task]
    return post(
        paths[gateway_path],
        {"model": model, **body},
        headers=bearer(api_key),
        timeout=QUESTION_SECONDS,
        judge=judge_answer,
    )


def models(api_key: str | None) -> HttpQuestion:
    """Return the request whose answer `context_length` reads."""
    return HttpQuestion(method="GET", path="/v1/models", headers=bearer(api_key), timeout=LIVENESS_SECONDS)


def context_length(body: bytes) -> Mapping[str, str]:
    """Read the context length from `/v1/models` as vLLM and SGLang answer it (`max_model_len`)."""
    try:
        length = json.loads(body)["data"][0]["max_model_len"]
    except (ValueError, KeyError, IndexError, TypeError):
        return {}
    return {"context_length": str(length)} if length else {}


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
