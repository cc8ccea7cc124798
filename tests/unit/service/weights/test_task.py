"""What models are served for."""

from typing import Any

import pytest
from slipway_service.weights.task import Task, detect_task


@pytest.mark.parametrize(
    ("said", "task"),
    [
        ({"architecture": "LlamaForCausalLM"}, Task.GENERATE),
        ({"architecture": "GPT2LMHeadModel"}, Task.GENERATE),
        ({"architecture": "Gemma3ForConditionalGeneration"}, Task.GENERATE),
        ({"architecture": "llama"}, Task.GENERATE),
        ({"architecture": "llama", "pooling": "NONE"}, Task.GENERATE),
        ({"architecture": "qwen3", "pooling": "LAST"}, Task.EMBED),
        ({"architecture": "bert", "pooling": "MEAN"}, Task.EMBED),
        ({"architecture": "nomic-bert"}, Task.EMBED),
        ({"architecture": "bert", "pooling": "RANK"}, Task.RERANK),
        ({"architecture": "BertModel"}, Task.EMBED),
        ({"architecture": "XLMRobertaForSequenceClassification", "labels": 1}, Task.RERANK),
        ({"architecture": "BertForSequenceClassification", "labels": 2}, None),
        ({"pipeline_tag": "text-generation"}, Task.GENERATE),
        ({"pipeline_tag": "feature-extraction", "architecture": "Qwen3ForCausalLM"}, Task.EMBED),
        ({"pipeline_tag": "sentence-similarity"}, Task.EMBED),
        ({"pipeline_tag": "text-ranking"}, Task.RERANK),
        ({"pipeline_tag": "text-generation", "name": "Qwen/Qwen3-Reranker-0.6B"}, Task.RERANK),
        ({"name": "Qwen/Qwen3-Embedding-8B-GGUF", "architecture": "qwen3"}, Task.EMBED),
        ({"name": "BAAI/bge-m3", "architecture": "XLMRobertaModel"}, Task.EMBED),
        ({"name": "BAAI/bge-reranker-v2-m3"}, Task.RERANK),
        ({"architecture": "MPNetForMaskedLM", "paths": {"modules.json", "1_Pooling/config.json"}}, Task.EMBED),
        ({"pipeline_tag": "text-to-image"}, None),
        ({"architecture": "clip"}, None),
        ({}, None),
    ],
)
def test_tasks(said: dict[str, Any], task: Task | None) -> None:
    assert detect_task(**said) is task
