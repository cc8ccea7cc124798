"""transformers, unmodified, loads the demo's models from the emulator and then offline."""

import json
from typing import Any

import pytest

from tests.hub.emulator import HubEmulator
from tests.hub.models.demo import TINY_LLAMA
from tests.integration.hub.backends import program
from tests.integration.hub.clients import Native, run

CHAT = """
import json
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
config = AutoConfig.from_pretrained("slipway-demo/tiny-llama", revision="v1.0")
tokenizer = AutoTokenizer.from_pretrained("slipway-demo/tiny-llama", revision="v1.0")
model = AutoModelForCausalLM.from_pretrained("slipway-demo/tiny-llama", revision="v1.0")
messages = [{"role": "user", "content": "Who are you?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=40)[0][inputs["input_ids"].shape[1]:]
answer = tokenizer.decode(output, skip_special_tokens=True)
spelt = tokenizer.decode(tokenizer("Hello tiny Ünïcödé 漢字!")["input_ids"])
print(json.dumps({"layers": config.num_hidden_layers, "answer": answer, "spelt": spelt}))
"""
BERTS = """
import json
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("slipway-demo/tiny-embed")
model = AutoModel.from_pretrained("slipway-demo/tiny-embed")
def embed(text):
    mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(dim=1)[0]
    return mean / mean.norm()
near, far = (float(embed("the quick brown fox") @ embed(t)) for t in ("a brown fox", "model server registry"))
reranker = AutoModelForSequenceClassification.from_pretrained("slipway-demo/tiny-rerank")
documents = ["the fox jumps", "slipway loads models", "a cat sleeps in the sun"]
pairs = tokenizer(["what is slipway"] * 3, documents, padding=True, return_tensors="pt")
scores = reranker(**pairs).logits.flatten().tolist()
print(json.dumps({"near": near, "far": far, "best": scores.index(max(scores))}))
"""


@pytest.fixture(scope="module")
def interpreter() -> str:
    return program("transformers", "python")


def evaluate(native: Native, interpreter: str, code: str, **extra: str) -> Any:
    done = run([interpreter, "-c", code], native.environment(**extra))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_sharded_llama_online_and_offline(demo_hub: HubEmulator, demo_native: Native, interpreter: str) -> None:
    online = evaluate(demo_native, interpreter, CHAT)
    assert online["answer"] == TINY_LLAMA.sentence
    assert online["layers"] == TINY_LLAMA.layers
    assert online["spelt"] == "Hello tiny Ünïcödé 漢字!"
    assert demo_hub.journal.requests("pytorch_model.bin") == []
    assert demo_hub.journal.leaks() == []
    demo_hub.journal.clear()
    assert evaluate(demo_native, interpreter, CHAT, HF_HUB_OFFLINE="1") == online
    assert demo_hub.journal.requests() == []


def test_the_embedder_and_the_reranker(demo_native: Native, interpreter: str) -> None:
    found = evaluate(demo_native, interpreter, BERTS)
    assert found["near"] > 0.6 > found["far"]
    assert found["best"] == 1
