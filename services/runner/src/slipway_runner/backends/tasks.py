"""What a model can be asked for, by its architecture."""

from slipway_runner.backends.base import Format, ModelFiles, Task

# `general.architecture` of GGUF files whose models have no next token to give (llama.cpp's llama-arch.cpp).
_GGUF_ENCODERS = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "t5encoder"}
)

# Ends of `architectures[0]` in config.json.
_GENERATIVE = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForImageTextToText")
_SCORING = ("ForSequenceClassification",)


def default_task(files: ModelFiles) -> Task:
    """Return what a model is for, where nobody says."""
    if generates(files):
        return Task.GENERATE
    ranks = files.ranks if files.format is Format.GGUF else files.architecture.endswith(_SCORING)
    return Task.RERANK if ranks else Task.EMBED


def generates(files: ModelFiles) -> bool:
    """Whether a model writes text; one of an unknown architecture may."""
    if files.format is Format.GGUF:
        return files.architecture not in _GGUF_ENCODERS and not files.ranks
    return not files.architecture or files.architecture.endswith(_GENERATIVE)


def why_no_text(files: ModelFiles) -> str:
    """Say why a model cannot be asked to generate."""
    return f"{files.architecture} is an encoder: it embeds or reranks, and writes no text"
