"""The table of routes: who gets a request, and what is said where nobody does."""

from dataclasses import replace
from typing import Any

import pytest
from slipway_runner.backends.base import Task
from slipway_runner.backends.openai import PATHS
from slipway_runner.gateway.refusal import Refusal
from slipway_runner.gateway.routes import ENDPOINT_TASKS, RETRY_AFTER, Route, Table
from slipway_runner.models.states import State
from slipway_service.fault import Reason

CHAT, EMBEDDINGS, RERANK = "/v1/chat/completions", "/v1/embeddings", "/v1/rerank"


def route(model_id: str, **more: Any) -> Route:
    task = more.get("task", Task.GENERATE)
    given = {"uid": f"uid of {model_id}", "task": task, "state": State.LOADED, "paths": PATHS[task], **more}
    return Route(id=model_id, **given)


QWEN = route("qwen", aliases=("gpt-4o", "default"), repo_id="Qwen/Qwen3-8B", active=True)
LLAMA = route("llama", repo_id="meta/Llama")
BERT = route("bert", task=Task.EMBED, active=True)
TABLE = Table([QWEN, LLAMA, BERT])


@pytest.mark.parametrize(
    ("path", "model", "expected"),
    [
        (CHAT, "qwen", QWEN),
        (CHAT, "gpt-4o", QWEN),
        (CHAT, "default", QWEN),
        (CHAT, "Qwen/Qwen3-8B", QWEN),
        (CHAT, "llama", LLAMA),
        ("/v1/completions", "meta/Llama", LLAMA),
        (CHAT, None, QWEN),
        (CHAT, "", QWEN),
        (EMBEDDINGS, None, BERT),
        (EMBEDDINGS, "bert", BERT),
    ],
)
def test_a_request_goes_to_the_model_it_names_or_to_the_active_one(
    path: str, model: str | None, expected: Route
) -> None:
    assert TABLE.choose(path, model) is expected


@pytest.mark.parametrize("name", ["Qwen", "qwen ", "qwen3-8b", "llama/", "\ud800"])
def test_names_are_taken_literally(name: str) -> None:
    refused = refusal(TABLE, CHAT, name)
    assert (refused.status, refused.code) == (404, Reason.MODEL_NOT_FOUND)
    assert refused.text == f"There is no model {name}; there are: bert, llama, qwen."
    assert refused.retry_after is None


def test_an_unknown_name_of_any_length_gets_an_answer_that_is_short() -> None:
    many = Table([route(f"model-{number:03}") for number in range(200)])
    refused = refusal(many, CHAT, "x" * 1_000_000)
    assert len(refused.text) < 1000
    assert refused.text.endswith("model-049 and 150 more.")


def test_an_empty_host_says_so() -> None:
    assert refusal(Table(), CHAT, "qwen").text == "There is no model qwen; there are: none."


@pytest.mark.parametrize("path", sorted(ENDPOINT_TASKS))
def test_without_an_active_model_the_task_is_named(path: str) -> None:
    refused = refusal(Table([LLAMA]), path, None)
    assert (refused.status, refused.code, refused.retry_after) == (503, Reason.NO_ACTIVE_MODEL, None)
    assert ENDPOINT_TASKS[path] in refused.text


def test_a_model_of_another_task_is_the_callers_mistake() -> None:
    refused = refusal(TABLE, EMBEDDINGS, "qwen")
    assert (refused.status, refused.code) == (400, Reason.INVALID_FIELDS)
    assert refused.text == "qwen is for generate: /v1/chat/completions, /v1/completions, not /v1/embeddings."
    assert refusal(TABLE, CHAT, "bert").status == 400
    assert refusal(Table([route("mute", paths={})]), CHAT, "mute").status == 400


WAIT = RETRY_AFTER
LOADING, UNLOADING = Reason.MODEL_NOT_LOADED, Reason.MODEL_UNLOADING


@pytest.mark.parametrize(
    ("change", "code", "retry_after", "text"),
    [
        ({"state": State.LOADING}, LOADING, WAIT, "qwen is loading (0%)"),
        (
            {"state": State.LOADING, "fraction": 0.257, "detail": "shard 1/4"},
            LOADING,
            WAIT,
            "qwen is loading (26%): shard 1/4",
        ),
        ({"state": State.UNHEALTHY, "detail": "no answer"}, LOADING, WAIT, "qwen is UNHEALTHY: no answer"),
        ({"state": State.RESTARTING, "detail": "killed"}, LOADING, WAIT, "qwen is RESTARTING: killed"),
        ({"state": State.ERROR, "detail": "out of memory"}, LOADING, None, "qwen is ERROR: out of memory"),
        ({"state": State.UNLOADING, "detail": "requests drain"}, UNLOADING, None, "qwen is being unloaded"),
        ({"state": State.UNLOADED}, UNLOADING, None, "qwen is being unloaded"),
        ({"draining": True}, UNLOADING, None, "qwen is being unloaded"),
        ({"state": State.LOADING, "draining": True}, UNLOADING, None, "qwen is being unloaded"),
    ],
)
def test_what_does_not_serve_now_says_why_and_whether_to_wait(
    change: dict[str, Any], code: str, retry_after: int | None, text: str
) -> None:
    table = Table([replace(QWEN, **change), LLAMA])
    for name in ("qwen", "default", "Qwen/Qwen3-8B", None):
        refused = refusal(table, CHAT, name)
        assert (refused.status, refused.code, refused.retry_after, refused.text) == (503, code, retry_after, text)
    assert table.choose(CHAT, "llama") is LLAMA


def test_the_progress_of_a_load_is_there_for_programs() -> None:
    refused = refusal(Table([route("qwen", state=State.LOADING, fraction=0.123456)]), CHAT, "qwen")
    assert refused.document()["error"] == {
        "message": "MODEL_NOT_LOADED: qwen is loading (12%)",
        "type": "server_error",
        "code": "MODEL_NOT_LOADED",
        "param": None,
        "state": "LOADING",
        "progress": 0.1235,
    }
    assert refused.headers() == {"Retry-After": "2"}


@pytest.mark.parametrize("state", [state for state in State if state is not State.LOADED])
def test_only_loaded_models_serve(state: State) -> None:
    assert refusal(Table([replace(QWEN, state=state)]), CHAT, "qwen").status == 503


def test_a_dormant_model_is_wanted_by_any_of_its_names() -> None:
    dormant = replace(QWEN, state=State.UNLOADED, on_demand=True, active=False, detail="no memory")
    for name in ("qwen", "default", "Qwen/Qwen3-8B"):
        refused = refusal(Table([dormant, LLAMA]), CHAT, name)
        assert (refused.status, refused.code, refused.retry_after, refused.wants) == (503, LOADING, WAIT, "qwen")
        assert refused.passing
        assert refused.text == "qwen is loaded on demand, which begins now; at the last attempt: no memory"
    assert refusal(Table([dormant]), CHAT, None).code == "NO_ACTIVE_MODEL"


def test_nobody_wants_a_model_that_is_on_its_way_out() -> None:
    leaving = refusal(Table([replace(QWEN, state=State.UNLOADING, on_demand=True)]), CHAT, "qwen")
    assert (leaving.retry_after, leaving.wants) == (WAIT, "")


def test_an_id_wins_over_an_alias_and_an_alias_over_a_repository() -> None:
    by_repo = route("one", repo_id="name")
    by_alias = route("two", aliases=("name",))
    by_id = route("name")
    assert Table([by_id, by_alias, by_repo]).choose(CHAT, "name") is by_id
    assert Table([by_alias, by_repo]).choose(CHAT, "name") is by_alias
    assert Table([by_repo]).choose(CHAT, "name") is by_repo


def test_of_several_models_of_a_repository_the_one_that_serves_answers() -> None:
    dead = route("a", repo_id="org/repo", state=State.ERROR)
    loading = route("b", repo_id="org/repo", state=State.LOADING)
    serving = route("c", repo_id="org/repo")
    active = route("d", repo_id="org/repo", active=True)
    for order in (1, -1):
        assert Table([dead, loading, serving][::order]).choose(CHAT, "org/repo") is serving
        assert Table([active, serving, dead][::order]).choose(CHAT, "org/repo") is active
        assert refusal(Table([dead, loading][::order]), CHAT, "org/repo").text.startswith("b is loading")


def test_a_route_survives_the_way_to_the_gateway_and_hides_its_key_from_logs() -> None:
    sent = route("qwen", aliases=("a", "b"), api_key="secret", detail="x", fraction=0.5)
    assert Route.from_json(sent.to_json()) == sent
    assert "secret" not in repr(sent)


def refusal(table: Table, path: str, model: str | None) -> Refusal:
    chosen = table.choose(path, model)
    assert isinstance(chosen, Refusal)
    return chosen
