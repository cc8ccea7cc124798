"""A repository as the cache alone knows it, in the shape of the Hub's answers."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from slipway_service.weights.appraisal import header_sources
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.gguf import parse_gguf
from slipway_service.weights.memory import DeviceMemory
from slipway_service.weights.model_facts import MAX_CONFIG_BYTES, ModelFacts, facts_of_gguf, parse_config
from slipway_service.weights.names import RepoId, Revision
from slipway_service.weights.reading import HeaderError, Read
from slipway_service.weights.variants import find_variants

from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.hub.card import CARD, summary_of_card
from slipway_registry.hub.listing import RepoTree
from slipway_registry.hub.repository import CONFIG, Repository, describe


def cached_tree(snapshot: Snapshot, requested: RepoId, revision: Revision) -> RepoTree:
    """Every file of the snapshot's commit, present or not, as far as the cache knows them."""
    return RepoTree(
        requested=requested,
        repo=snapshot.repo,
        revision=revision,
        commit=snapshot.commit,
        files=snapshot.listing,
        from_cache=True,
    )


def cached_repository(
    snapshot: Snapshot,
    revision: Revision,
    hub: Path,
    *,
    devices: Sequence[DeviceMemory] = (),
    context_tokens: int = 0,
) -> Repository:
    """The repository at the snapshot's commit, with what the files that are there tell. Reads them: for a thread.

    Args:
        hub: the hub cache.
        devices, context_tokens: as for `describe`.
    """
    root = RepoPaths(hub, snapshot.repo).snapshot(snapshot.commit)
    present = snapshot.present
    tree = cached_tree(snapshot, snapshot.repo, revision)
    variants = find_variants(tree.files)
    readable = [variant for variant in variants if variant.files[0].path in present]
    ggufs = {
        model: facts
        for model, file in sorted(header_sources(readable).items())
        if (facts := _read(root, file, _gguf_facts)) is not None
    }
    config = next((file for file in tree.files if file.path == CONFIG and file.path in present), None)
    return describe(
        tree,
        summary_of_card(snapshot.repo, snapshot.commit, root / CARD),
        variants,
        config=_read(root, config, _config_facts) if config and config.size_bytes <= MAX_CONFIG_BYTES else None,
        ggufs=ggufs,
        devices=devices,
        context_tokens=context_tokens,
    )


def _read(root: Path, file: RepoFile, facts: Callable[[Read], ModelFacts | None]) -> ModelFacts | None:
    """What a file tells; None where it has gone, or is none of its kind."""
    try:
        with (root / file.path).open("rb") as opened:
            return facts(lambda offset, length: os.pread(opened.fileno(), length, offset))
    except (OSError, HeaderError):
        return None


def _gguf_facts(read: Read) -> ModelFacts:
    return facts_of_gguf(parse_gguf(read))


def _config_facts(read: Read) -> ModelFacts | None:
    return parse_config(read(0, MAX_CONFIG_BYTES))
