"""A repository at a commit with all that can be known before a byte of its weights is downloaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import structlog
from huggingface_hub import ModelInfo
from slipway_service.fault import Fault
from slipway_service.weights.appraisal import ConfigSummary, appraise, header_sources, summarise
from slipway_service.weights.files import RepoFile
from slipway_service.weights.gguf import parse_gguf
from slipway_service.weights.memory import DeviceMemory
from slipway_service.weights.model_facts import (
    MAX_CONFIG_BYTES,
    ModelFacts,
    facts_of_config,
    facts_of_gguf,
    parse_config,
)
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.reading import HeaderError
from slipway_service.weights.variant import Variant
from slipway_service.weights.variants import find_variants

from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import Subject
from slipway_registry.hub.gateway import HubGateway
from slipway_registry.hub.listing import RepoTree
from slipway_registry.hub.metadata import HubMetadata
from slipway_registry.hub.session import HubSession
from slipway_registry.hub.summary import RepoSummary

CONFIG = "config.json"

CONTENT_TTL = 86_400.0
"""Seconds for which what was read of a file is kept: it is named by its hash and never changes."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """As `slipway.registry.v1.Repo`.

    Attributes:
        repo: as the Hub spells it today.
        revision: as it was asked for.
        commit: what that resolved to.
        summary: what a search shows.
        license: the licence's id; empty when there is none.
        config: what configuration and headers tell.
        files: all files, by path.
        variants: the ways to have its weights.
        from_cache: whether all this is what the cache knows, because the Hub was not asked or not reached.
    """

    repo: RepoId
    revision: Revision
    commit: Commit
    summary: RepoSummary
    license: str
    config: ConfigSummary
    files: tuple[RepoFile, ...]
    variants: tuple[Variant, ...]
    from_cache: bool = False

    @property
    def total_bytes(self) -> int:
        """Sum of all sizes."""
        return sum(file.size_bytes for file in self.files)


def describe(
    tree: RepoTree,
    summary: RepoSummary,
    variants: Sequence[Variant],
    *,
    config: ModelFacts | None = None,
    ggufs: Mapping[str, ModelFacts] | None = None,
    said: Sequence[ModelFacts] = (),
    devices: Sequence[DeviceMemory] = (),
    context_tokens: int = 0,
) -> Repository:
    """Put together what is known of a commit, wherever it was read.

    Args:
        tree: its files.
        summary: what a search shows of the repository.
        variants: those of `find_variants(tree.files)`.
        config: from its config.json.
        ggufs: from headers, by `Variant.model`.
        said: what others read of its files, for what the files themselves do not tell.
        devices: those to say for whether each variant fits.
        context_tokens: context to estimate for; 0 for the smaller of 8,192 and what the model was trained for.
    """
    config, ggufs = config or ModelFacts(), ggufs or {}
    known = summarise(
        [config, *ggufs.values(), *said],
        name=tree.repo,
        pipeline_tag=summary.pipeline_tag,
        paths={file.path for file in tree.files},
        parameters=summary.parameters,
    )
    return Repository(
        repo=tree.repo,
        revision=tree.revision,
        commit=tree.commit,
        summary=summary,
        license=summary.license,
        config=known,
        files=tree.files,
        variants=appraise(
            variants,
            ggufs=ggufs,
            config=replace(config, parameters=summary.parameters),
            trained_context=known.context_length,
            context_tokens=context_tokens,
            devices=devices,
        ),
        from_cache=tree.from_cache,
    )


class HubRepositories:
    """Reads repositories with their variants."""

    def __init__(self, gateway: HubGateway, metadata: HubMetadata) -> None:
        self._gateway = gateway
        self._metadata = metadata

    async def get(
        self,
        repo: RepoId,
        revision: Revision,
        credential: Credential,
        *,
        devices: Sequence[DeviceMemory] = (),
        context_tokens: int = 0,
    ) -> Repository:
        """A repository at a revision; with devices, whether each variant fits on each.

        Where headers cannot be read (a gated repository, say), estimates rest on sizes alone.

        Raises:
            Fault: as `HubMetadata.tree`.
        """
        found = await self._metadata.resolve(repo, revision, credential)
        tree = await self._metadata.tree(repo, revision, credential)
        # In a thread: a listing of 100,000 files takes seconds.
        variants = await anyio.to_thread.run_sync(find_variants, tree.files)
        configs: dict[str, ModelFacts] = {}
        ggufs: dict[str, ModelFacts] = {}
        async with anyio.create_task_group() as group:
            for file in tree.files:
                if file.path == CONFIG and 0 < file.size_bytes <= MAX_CONFIG_BYTES:
                    group.start_soon(self._note, configs, CONFIG, tree, file, credential)
            for model, file in header_sources(variants).items():
                group.start_soon(self._note, ggufs, model, tree, file, credential)
        return describe(
            tree,
            found.summary,
            variants,
            config=configs.get(CONFIG),
            ggufs={model: ggufs[model] for model in sorted(ggufs)},
            said=_said_by_hub(found.info),
            devices=devices,
            context_tokens=context_tokens,
        )

    async def _note(
        self, noted: dict[str, ModelFacts], name: str, tree: RepoTree, file: RepoFile, credential: Credential
    ) -> None:
        """Read a file's facts and note them under a name; without them where it cannot be read."""
        subject = Subject(repo=tree.repo, revision=tree.commit, path=file.path)

        async def ask() -> ModelFacts | None:
            return await self._gateway.call(credential, subject, partial(_facts, tree=tree, file=file))

        try:
            facts = await self._gateway.shared(credential, ("facts", file.blob_id), ask, ttl=CONTENT_TTL)
        except Fault as fault:
            _log.info("header_unreadable", **subject.facts, reason=fault.reason)
            return
        if facts:
            noted[name] = facts


def _facts(session: HubSession, *, tree: RepoTree, file: RepoFile) -> ModelFacts | None:
    """What config.json or a GGUF's header tells; None where it is none."""
    read = partial(session.read, tree.repo, tree.commit, file.path)
    if file.path == CONFIG:
        return parse_config(read(0, file.size_bytes))
    try:
        return facts_of_gguf(parse_gguf(read))
    except HeaderError as error:
        _log.info("gguf_header_unusable", repo_id=tree.repo, revision=tree.commit, path=file.path, why=str(error))
        return None


def _said_by_hub(info: ModelInfo) -> list[ModelFacts]:
    """What the Hub itself read of the files, for when they may not be read here; its JSON is not taken on trust."""
    said: Any = info
    facts = []
    if isinstance(said.config, Mapping):
        tokenizer = said.config.get("tokenizer_config")
        template = isinstance(tokenizer, Mapping) and "chat_template" in tokenizer
        facts.append(replace(facts_of_config(said.config), chat_template=template or None))
    if isinstance(said.gguf, Mapping):
        shown = {
            "architectures": [said.gguf.get("architecture")],
            "max_position_embeddings": said.gguf.get("context_length"),
        }
        facts.append(replace(facts_of_config(shown), chat_template="chat_template" in said.gguf))
    return facts
