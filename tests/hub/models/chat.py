"""The tensors of a tiny Llama that says one sentence, in Hugging Face's names."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.hub.models import vocabulary
from tests.hub.models.noise import Weights, ones, uniform, zeros
from tests.hub.models.vocabulary import NUMBERS, Vocabulary

SENTENCES = {
    "tiny-chat": "Hello! I am a tiny model made on the spot, and this is all that can be said.",
    "nano-chat": "Hi! Two layers, no more.",
    "tiny-llama": "Greetings from several shards: all of them were loaded before these words came out.",
    "small-llama": "Hello! Found, hashed and loaded: all my shards answer together.",
}
VOCABULARY = vocabulary.build(
    [
        piece
        for sentence in (*SENTENCES.values(), *(f"x {number}" for number in NUMBERS))
        for piece in vocabulary.pieces(sentence)
    ]
)
# A logit of about 25 for the next token, and of 5 for the best of the others.
_OUTPUT_SCALE = 0.1
# What a layer adds to the residual stream, against its 1: it moves bits, and no token.
_LAYER_RMS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatModel:
    """A Llama's shape and what it says; heads are 64 wide, which every backend accepts."""

    name: str
    layers: int
    hidden: int = 256
    feed_forward: int = 512
    kv_heads: int = 2
    context: int = 4096

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.hidden // HEAD_WIDTH

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return VOCABULARY

    @property
    def sentence(self) -> str:
        """Its answer to everything but a request to count."""
        return SENTENCES[self.name]

    def tensors(self) -> Iterator[tuple[str, Weights]]:
        """Every tensor, in the order of a checkpoint."""
        embedding, output = self._word_tensors()
        yield "model.embed_tokens.weight", embedding
        for layer in range(self.layers):
            yield from self._layer(f"model.layers.{layer}")
        yield "model.norm.weight", ones(self.hidden)
        yield "lm_head.weight", output

    def _layer(self, prefix: str) -> Iterator[tuple[str, Weights]]:
        hidden, inner, kv = self.hidden, self.feed_forward, HEAD_WIDTH * self.kv_heads

        def matrix(name: str, rows: int, columns: int, rms: float) -> tuple[str, Weights]:
            # A unit input gives an output of that root mean square.
            full = f"{prefix}.{name}.weight"
            return full, uniform(f"{self.name}/{full}", rows, columns, rms=rms / columns**0.5)

        yield f"{prefix}.input_layernorm.weight", ones(hidden)
        yield matrix("self_attn.q_proj", hidden, hidden, 1.0)
        yield matrix("self_attn.k_proj", kv, hidden, 1.0)
        yield matrix("self_attn.v_proj", kv, hidden, 1.0)
        yield matrix("self_attn.o_proj", hidden, hidden, _LAYER_RMS)
        yield f"{prefix}.post_attention_layernorm.weight", ones(hidden)
        yield matrix("mlp.gate_proj", inner, hidden, 1.0)
        yield matrix("mlp.up_proj", inner, hidden, 1.0)
        yield matrix("mlp.down_proj", hidden, inner, _LAYER_RMS)

    def _word_tensors(self) -> tuple[Weights, Weights]:
        """Embedding and output: a token's output row is the embedding of the token before it.

        Tokens that nothing is known to follow share a direction, which points to the start of the sentence.
        """
        rows = len(self.vocabulary.tokens)
        own = uniform(f"{self.name}/words", rows, self.hidden)
        shared = uniform(f"{self.name}/shared", self.hidden)
        follows = vocabulary.successors(self.vocabulary, self.sentence)
        embedding = (own + shared) / 2**0.5
        output = zeros(rows, self.hidden)
        for before, after in follows.items():
            embedding[before] = own[before]
            output[after] += own[before] * _OUTPUT_SCALE
        output[follows[vocabulary.ASSISTANT]] += shared * _OUTPUT_SCALE
        return embedding.astype("float32"), output


HEAD_WIDTH = 64
