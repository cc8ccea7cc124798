"""A tiny BERT: an embedder whose vectors are bags of words, or a reranker that looks for one word."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.hub.models.noise import Weights, ones, uniform, zeros

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, CLS, SEP, MASK = range(5)
_TEXT = """
the quick brown fox jumps over lazy dog a cat sleeps in sun hello world how are you today is was what which model server
registry runner loads answers requests weights cache download hub slipway shard snapshot
"""
WORDS = tuple(_TEXT.split())
# Every word that is not in the list is spelt with these.
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
# The word that the reranker likes to see.
FAVOURITE = "slipway"
# What a layer adds to its input's 1.
_LAYER_RMS = 0.02
# How strongly the reranker's first token takes up the mean of all tokens, and how far apart its scores lie.
_MIXING, _CONTRAST = 4.0, 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert:
    """Shape and purpose; ``reranker`` adds a classifier with one score."""

    name: str
    reranker: bool = False
    layers: int = 2
    hidden: int = 128
    heads: int = 2
    feed_forward: int = 256
    positions: int = 512

    @property
    def tokens(self) -> list[str]:
        """Tokens as WordPiece writes them: ``##`` before what continues a word."""
        continuing = [f"##{letter}" for letter in LETTERS]
        return list(dict.fromkeys([*SPECIAL, *WORDS, *LETTERS, *continuing]))

    def tensors(self) -> Iterator[tuple[str, Weights]]:
        """Every tensor, by Hugging Face's name for it (without the ``bert.`` of models with a head)."""
        words = uniform("bert/words", len(self.tokens), self.hidden)
        yield "embeddings.word_embeddings.weight", words
        yield "embeddings.position_embeddings.weight", self._small("positions", self.positions, self.hidden)
        yield "embeddings.token_type_embeddings.weight", self._small("types", 2, self.hidden)
        yield from _norm("embeddings.LayerNorm", self.hidden)
        for layer in range(self.layers):
            yield from self._layer(f"encoder.layer.{layer}", mixes=self.reranker and layer == 0)
        yield from _linear("pooler.dense", np.eye(self.hidden, dtype=np.float32))
        if self.reranker:
            favourite = words[self.tokens.index(FAVOURITE)] * (_CONTRAST / self.hidden)
            yield from _linear("classifier", favourite.reshape(1, -1))

    def _layer(self, prefix: str, *, mixes: bool) -> Iterator[tuple[str, Weights]]:
        """A layer that does next to nothing, or one whose attention adds the mean of all tokens."""
        width = self.hidden
        for part in ("query", "key"):
            yield from _linear(f"{prefix}.attention.self.{part}", self._small(f"{prefix}.{part}", width, width))
        same = np.eye(width, dtype=np.float32)
        value = same if mixes else self._small(f"{prefix}.value", width, width)
        yield from _linear(f"{prefix}.attention.self.value", value)
        output = same * _MIXING if mixes else self._small(f"{prefix}.output", width, width)
        yield from _linear(f"{prefix}.attention.output.dense", output)
        yield from _norm(f"{prefix}.attention.output.LayerNorm", width)
        inner = self._small(f"{prefix}.intermediate", self.feed_forward, width)
        yield from _linear(f"{prefix}.intermediate.dense", inner)
        outer = self._small(f"{prefix}.outer", width, self.feed_forward)
        yield from _linear(f"{prefix}.output.dense", outer)
        yield from _norm(f"{prefix}.output.LayerNorm", width)

    def _small(self, name: str, *shape: int) -> Weights:
        return uniform(f"bert/{name}", *shape, rms=_LAYER_RMS)

    def config(self) -> dict[str, Any]:
        """Its ``config.json``."""
        head = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}} if self.reranker else {}
        return {
            "architectures": ["BertForSequenceClassification" if self.reranker else "BertModel"],
            "model_type": "bert",
            "vocab_size": len(self.tokens),
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.positions,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "layer_norm_eps": 1e-12,
            "pad_token_id": PAD,
            "torch_dtype": "float32",
            **head,
        }

    def tokenizer_json(self) -> dict[str, Any]:
        """Its ``tokenizer.json``: lower case, WordPiece, ``[CLS] a [SEP] b [SEP]``."""
        added = [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(SPECIAL)
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": _template(),
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": {token: index for index, token in enumerate(self.tokens)},
            },
        }


def _template() -> Mapping[str, Any]:
    def special(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def text(which: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": which, "type_id": kind}}

    single = [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), special("[SEP]", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [index], "tokens": [token]} for token, index in (("[CLS]", CLS), ("[SEP]", SEP))
        },
    }


def _linear(name: str, weight: Weights) -> Iterator[tuple[str, Weights]]:
    yield f"{name}.weight", weight
    yield f"{name}.bias", zeros(weight.shape[0])


def _norm(name: str, width: int) -> Iterator[tuple[str, Weights]]:
    yield f"{name}.weight", ones(width)
    yield f"{name}.bias", zeros(width)
