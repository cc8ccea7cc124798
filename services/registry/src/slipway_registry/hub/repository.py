"""A repository at a commit with all that can be known before a byte of its weights is downloaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
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
from slipway_registry.hub.metadata import HubMetadata, Resolved
from slipway_registry.hub.session import HubSession
from slipway_registry.hub.summary import RepoSummary

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
    """

    repo: RepoId
    revision: Revision
    commit: Commit
    summary: RepoSummary
    license: str
    config: ConfigSummary
    files: tuple[RepoFile, ...]
    variants: tuple[Variant, ...]

    @property
    def total_bytes(self) -> int:
        """Sum of all sizes."""
        return sum(file.size_bytes for file in self.files)


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
        variants = find_variants(tree.files)
        config = await self._config(tree, credential) or ModelFacts()
        ggufs = {
            model: facts
            for model, file in header_sources(variants).items()
            if (facts := await self._header(tree, file, credential))
        }
        said = _said_by_hub(found)
        summary = summarise(
            [config, *ggufs.values(), *said],
            name=tree.repo,
            pipeline_tag=found.summary.pipeline_tag,
            paths={file.path for file in tree.files},
            parameters=found.summary.parameters,
        )
        return Repository(
            repo=tree.repo,
            revision=revision,
            commit=tree.commit,
            summary=found.summary,
            license=found.summary.license,
            config=summary,
            files=tree.files,
            variants=appraise(
                variants,
                ggufs=ggufs,
                config=replace(config, parameters=found.summary.parameters),
                context_tokens=context_tokens,
                devices=devices,
            ),
        )

    async def _config(self, tree: RepoTree, credential: Credential) -> ModelFacts | None:
        file = next((file for file in tree.files if file.path == "config.json"), None)
        if file is None or not 0 < file.size_bytes <= MAX_CONFIG_BYTES:
            return None

        def work(session: HubSession) -> ModelFacts | None:
            return parse_config(session.read(tree.repo, tree.commit, file.path, 0, file.size_bytes))

        return await self._facts(tree, file, credential, work)

    async def _header(self, tree: RepoTree, file: RepoFile, credential: Credential) -> ModelFacts | None:
        def work(session: HubSession) -> ModelFacts | None:
            try:
                return facts_of_gguf(parse_gguf(partial(session.read, tree.repo, tree.commit, file.path)))
            except HeaderError as error:
                _log.info("gguf_header_unusable", repo=tree.repo, commit=tree.commit, path=file.path, why=str(error))
                return None

        return await self._facts(tree, file, credential, work)

    async def _facts(
        self, tree: RepoTree, file: RepoFile, credential: Credential, work: Callable[[HubSession], ModelFacts | None]
    ) -> ModelFacts | None:
        subject = Subject(repo=tree.repo, revision=tree.commit, path=file.path)

        async def ask() -> ModelFacts | None:
            return await self._gateway.call(credential, subject, work)

        try:
            return await self._gateway.shared(credential, ("facts", file.blob_id), ask, ttl=CONTENT_TTL)
        except Fault as fault:
            _log.info("header_unreadable", repo=tree.repo, commit=tree.commit, path=file.path, reason=fault.reason)
            return None


def _said_by_hub(found: Resolved) -> list[ModelFacts]:
    """What the Hub itself read of the files, for when they may not be read here; its JSON is not taken on trust."""
    facts = []
    said: Any = found.info
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
