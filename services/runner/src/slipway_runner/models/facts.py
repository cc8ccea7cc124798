"""What a model's own files say of it, read from a header or from config.json of this host."""

from pathlib import Path

from slipway_service.weights.gguf import parse_gguf
from slipway_service.weights.model_facts import ModelFacts, facts_of_gguf, parse_config
from slipway_service.weights.reading import HeaderError
from slipway_service.weights.variant import WeightFormat


def read_facts(root: Path, weights: str, format_: WeightFormat) -> ModelFacts:
    """What is known of a model beyond its files' names (blocking, some ms; a GGUF's vocabulary is walked).

    Files that cannot be read tell nothing: the backend will say what is wrong with them, and better.

    Args:
        root: the directory that the model's files lie in.
        weights: the first weight file, relative to it.
        format_: of the weights.
    """
    try:
        return _of_gguf(root / weights) if format_ is WeightFormat.GGUF else _of_config(root)
    except (OSError, HeaderError):
        return ModelFacts()


def _of_gguf(path: Path) -> ModelFacts:
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return facts_of_gguf(parse_gguf(read))


def _of_config(root: Path) -> ModelFacts:
    return parse_config((root / "config.json").read_bytes()) or ModelFacts()
