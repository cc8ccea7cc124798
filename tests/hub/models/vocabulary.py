"""A byte-level BPE vocabulary over a few words, in the forms of GGUF and of tokenizer.json."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SPECIAL = ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
UNKNOWN, BEGIN, END, ASSISTANT = 0, 1, 2, 5
# The space as the byte-level alphabet writes it.
_SPACE = "\u0120"
# Rows of the embedding are padded to this, as kernels like it.
_ALIGNMENT = 64

# `count` in the last message makes the model count for ever; anything else gets its sentence.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '</s>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|assistant|>' }}"
    "{% if 'count' in messages[-1]['content'] %}{{ ' one' }}{% endif %}"
    "{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id and the merges that build them."""

    tokens: Sequence[str]
    merges: Sequence[tuple[str, str]]

    def id(self, token: str) -> int:
        """The id of a word as it stands in a text, with the space before it."""
        return self.tokens.index(token.replace(" ", _SPACE))

    def tokenizer_json(self) -> dict[str, Any]:
        """The ``tokenizer.json`` of the tokenizers library."""
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
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": {token: index for index, token in enumerate(self.tokens)},
                "merges": [list(merge) for merge in self.merges],
            },
        }


def build(words: Iterable[str]) -> Vocabulary:
    """A vocabulary that has each word as one token, all bytes, and the special tokens."""
    tokens = [*SPECIAL, *byte_alphabet()]
    merges: list[tuple[str, str]] = []
    known = set(tokens)
    for word in words:
        text = word.replace(" ", _SPACE)
        for end in range(2, len(text) + 1):
            if text[:end] not in known:
                known.add(text[:end])
                tokens.append(text[:end])
                merges.append((text[: end - 1], text[end - 1]))
    padding = -len(tokens) % _ALIGNMENT
    tokens += [f"<|reserved_{index}|>" for index in range(padding)]
    return Vocabulary(tokens, merges)


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level BPE (as GPT-2 has them)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = (byte for byte in range(256) if byte not in printable)
    shifted = {byte: chr(256 + index) for index, byte in enumerate(rest)}
    return [shifted.get(byte, chr(byte)) for byte in range(256)]


def pieces(sentence: str) -> list[str]:
    """The words of a sentence as tokens: a space before each but the first, signs apart."""
    found: list[str] = []
    for index, word in enumerate(sentence.split(" ")):
        bare = word.rstrip("!,.:")
        found.append(f" {bare}" if index else bare)
        found.extend(word[len(bare) :])
    return found


def successors(vocabulary: Vocabulary, sentence: str) -> Mapping[int, int]:
    """Which token follows which: the sentence after the assistant's mark, then the end; numbers in a ring.

    Raises:
        ValueError: a token occurs twice, so what follows it is not determined.
    """
    chain = [ASSISTANT, *(vocabulary.id(piece) for piece in pieces(sentence)), END]
    ring = [vocabulary.id(f" {number}") for number in NUMBERS]
    follows = dict(itertools.pairwise(chain)) | dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    if len(follows) != len(chain) - 1 + len(ring):
        raise ValueError(f"a token occurs twice in {sentence!r}")
    return follows


NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
