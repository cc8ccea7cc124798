"""What a runner is asked to run, from plain values."""

from collections.abc import Iterable, Mapping

from slipway.common.v1.task_pb2 import Task
from slipway.runner.v1.model_pb2 import BackendSettings, ModelSpec, RepoSource, RestartPolicy

from slipway_client.client import duration
from slipway_client.words import value


def model_spec(
    repo_id: str = "",
    revision: str = "",
    *,
    path: str = "",
    variant: str = "",
    file: str = "",
    task: str = "",
    backend: str = "",
    settings: BackendSettings | None = None,
    flags: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    devices: Iterable[str] = (),
    restart_policy: str = "",
    start_timeout: float | None = None,
    idle_ttl: float | None = None,
    aliases: Iterable[str] = (),
    pinned: bool = False,
    load_on_demand: bool = False,
) -> ModelSpec:
    """A ModelSpec of a repository, or of a `path` on the runner's host.

    `task` is `generate`, `embed` or `rerank`; `restart_policy` is `never`, `on-failure` or `always`; times are seconds.

    Raises:
        ValueError: both or neither of repository and path, or no such word.
    """
    if bool(repo_id) == bool(path):
        raise ValueError("name a repository or a path")
    spec = ModelSpec(
        variant=variant,
        file=file,
        task=value(Task, task),
        backend=backend,
        settings=settings,
        flags=flags,
        environment=environment,
        devices=devices,
        restart_policy=value(RestartPolicy, restart_policy),
        start_timeout=duration(start_timeout),
        idle_ttl=duration(idle_ttl),
        aliases=aliases,
        pinned=pinned,
        load_on_demand=load_on_demand,
    )
    if path:
        spec.path = path
    else:
        spec.repo.CopyFrom(RepoSource(repo_id=repo_id, revision=revision))
    return spec


def repo_and_revision(text: str) -> tuple[str, str]:
    """The two parts of `REPO[@REVISION]`; no revision is an empty one.

    Raises:
        ValueError: there is no repository before the `@`.
    """
    repo_id, at, revision = text.partition("@")
    if not repo_id or (at and not revision):
        raise ValueError(f"{text!r} is not REPO or REPO@REVISION")
    return repo_id, revision
