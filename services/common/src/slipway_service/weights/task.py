"""What a model is served for, from what its files, configuration and tags say."""

import re
from collections.abc import Collection
from enum import StrEnum


class Task(StrEnum):
    """What a model is served for; names as in `slipway.common.v1.Task`."""

    GENERATE = "GENERATE"
    EMBED = "EMBED"
    RERANK = "RERANK"


_BY_PIPELINE_TAG = {
    "text-ranking": Task.RERANK,
    "feature-extraction": Task.EMBED,
    "sentence-similarity": Task.EMBED,
    "text-generation": Task.GENERATE,
    "image-text-to-text": Task.GENERATE,
    "audio-text-to-text": Task.GENERATE,
    "video-text-to-text": Task.GENERATE,
    "any-to-any": Task.GENERATE,
    "text2text-generation": Task.GENERATE,
    "conversational": Task.GENERATE,
}

_GENERATIVE = re.compile(r"For(?:CausalLM|ConditionalGeneration|ImageTextToText)$|LMHeadModel$")
_CLASSIFIER = re.compile(r"ForSequenceClassification$")
_ENCODERS = re.compile(r"(?:nomic-|modern-|neo-|jina-|euro)?bert(?:-.*)?|gemma-embedding|t5encoder")
"""GGUF architectures that make vectors and no text."""

_SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json")
_RERANKER_NAME = re.compile(r"rerank|cross-encoder", re.IGNORECASE)
_EMBEDDER_NAME = re.compile(r"(?:^|[-_./])(?:embed(?:ding|der)?s?|bge|gte|e5)(?:[-_.]|$)", re.IGNORECASE)


def detect_task(
    *,
    name: str = "",
    pipeline_tag: str = "",
    architecture: str = "",
    pooling: str = "",
    labels: int | None = None,
    paths: Collection[str] = (),
) -> Task | None:
    """What a model is most likely served for; None where nothing says it.

    Args:
        name: the repository's.
        pipeline_tag: the Hub's.
        architecture: the class in config.json (`LlamaForCausalLM`) or the architecture of a GGUF (`llama`).
        pooling: of a GGUF.
        labels: how many outputs a classifier has; a cross-encoder has one.
        paths: of the repository's files.
    """
    if pooling == "RANK" or (_CLASSIFIER.search(architecture) and (labels == 1 or _RERANKER_NAME.search(name))):
        return Task.RERANK
    if pipeline_tag in _BY_PIPELINE_TAG:
        return _corrected(_BY_PIPELINE_TAG[pipeline_tag], name, pooling)
    if _RERANKER_NAME.search(name):
        return Task.RERANK
    if pooling not in {"", "NONE"} or _ENCODERS.fullmatch(architecture) or _EMBEDDER_NAME.search(name):
        return Task.EMBED
    if any(path in paths for path in _SENTENCE_TRANSFORMERS):
        return Task.EMBED
    if _GENERATIVE.search(architecture) or _is_gguf_name(architecture):
        return Task.GENERATE
    return Task.EMBED if architecture.endswith("Model") else None


def _corrected(task: Task, name: str, pooling: str) -> Task:
    """The Hub tags rerankers by their base: text-generation (Qwen3-Reranker), or by how they are used."""
    if _RERANKER_NAME.search(name):
        return Task.RERANK
    if task is Task.GENERATE and pooling not in {"", "NONE"}:
        return Task.EMBED
    return task


def _is_gguf_name(architecture: str) -> bool:
    """GGUF architectures are lower case; those that are no encoder generate (`clip` is a projector)."""
    return architecture != "clip" and architecture != "" and architecture == architecture.lower()
