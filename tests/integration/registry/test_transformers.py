"""transformers, unmodified and offline, reads what the registry has put into the cache: all of it, and parts."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from slipway_registry.jobs.records import State
from slipway_service.weights.selection import DefaultSelection, select
from slipway_service.weights.variants import find_variants

from tests.hub.emulator import HubEmulator
from tests.hub.models.demo import TINY_LLAMA
from tests.hub.repos import Repo
from tests.integration.hub.backends import program
from tests.integration.hub.clients import Native, run
from tests.integration.registry.engines import engine_in, listing_of

NAME = "slipway-demo/tiny-llama"
NOBODY = 65534
# Caches are told by `cache_dir`, so that importing transformers is paid once for all of them.
LOAD = """
import json, os, sys
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

def load(cache, revision):
    where = {"cache_dir": cache, "revision": revision}
    found = {}
    for kind in (AutoConfig, AutoTokenizer, AutoModelForCausalLM):
        try:
            found[kind.__name__] = kind.from_pretrained("slipway-demo/tiny-llama", **where)
        except OSError as error:
            found[kind.__name__] = None
    tokenizer, model = found["AutoTokenizer"], found["AutoModelForCausalLM"]
    answer = None
    if tokenizer and model:
        messages = [{"role": "user", "content": "Who are you?"}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=40)[0][inputs["input_ids"].shape[1]:]
        answer = tokenizer.decode(output, skip_special_tokens=True)
    return {"loaded": [name for name, value in found.items() if value is not None], "answer": answer}

places = json.loads(sys.argv[1])
if user := os.environ.get("READ_AS"):
    load(*places[0])  # so that every module is there that the other user could not read
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
print(json.dumps([load(*place) for place in places]))
"""
EVERYTHING_LOADED = {
    "loaded": ["AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"],
    "answer": TINY_LLAMA.sentence,
}


def fill(hub: HubEmulator, directory: Path, repo: Repo, paths: Sequence[str] | None, symlinks: bool = True) -> str:
    """Have a registry download (some of) a repository by its tag; the hub cache that it is in."""

    async def fetch() -> None:
        async with engine_in(directory, hub.endpoint, symlinks=symlinks) as bench:
            assert (await bench.fetch(repo, paths=paths, revision="v1.0")).state is State.SUCCEEDED

    asyncio.run(fetch())
    return str(directory / "hub")


def default_of(repo: Repo) -> list[str]:
    """What is downloaded where nothing is chosen: one format of the weights, and what belongs to it."""
    listing = listing_of(repo.head)
    return [file.path for file in select(listing, find_variants(listing), DefaultSelection()).files]


def loaded(native: Native, *places: tuple[str, str], **extra: str) -> Any:
    """What transformers loads from each place: a cache, and a revision."""
    command = [program("transformers", "python"), "-c", LOAD, json.dumps(places)]
    done = run(command, native.environment(HF_HUB_OFFLINE="1", **extra))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_transformers_reads_parts_for_what_they_are(demo_hub: HubEmulator, tmp_path: Path) -> None:
    repo = demo_hub.catalogue.repos[NAME]
    usual = fill(demo_hub, tmp_path / "usual", repo, default_of(repo))
    without_links = fill(demo_hub, tmp_path / "files", repo, default_of(repo), symlinks=False)
    words = [path for path in repo.head.files if path.startswith(("tokenizer", "special_tokens"))]
    tokenizer = fill(demo_hub, tmp_path / "tokenizer", repo, ["config.json", *words])
    demo_hub.journal.clear()
    places = [(usual, "v1.0"), (usual, repo.head.id), (without_links, "v1.0"), (tokenizer, "v1.0")]
    found = loaded(Native(demo_hub.endpoint, tmp_path), *places)
    assert found[:3] == [EVERYTHING_LOADED] * 3
    assert found[3] == {"loaded": ["AutoConfig", "AutoTokenizer"], "answer": None}
    assert demo_hub.journal.requests() == []
    snapshot = Path(usual, "models--slipway-demo--tiny-llama", "snapshots", repo.head.id)
    assert "pytorch_model.bin" not in {path.name for path in snapshot.iterdir()}


@pytest.mark.full
def test_transformers_of_another_user_reads_the_same(demo_hub: HubEmulator, open_path: Path) -> None:
    """Needs root."""
    repo = demo_hub.catalogue.repos[NAME]
    cache = fill(demo_hub, open_path, repo, default_of(repo))
    native = Native(demo_hub.endpoint, open_path)
    assert loaded(native, (cache, "v1.0"), READ_AS=str(NOBODY)) == [EVERYTHING_LOADED]
