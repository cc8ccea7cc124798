"""The repositories of the demo, and of every test that wants models which real backends load."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.hub.content import Random, Source
from tests.hub.directory import files_under
from tests.hub.emulator import HubEmulator
from tests.hub.models import bert_files, chat_folder, chat_gguf, mmproj
from tests.hub.models.bert import Bert
from tests.hub.models.cards import GITATTRIBUTES, card
from tests.hub.models.chat import ChatModel

ORGANISATION = "slipway-demo"
# An account that may read the gated and the private repository.
USER, TOKEN = "demo", "hf_slipwaydemotoken"
GATED, PRIVATE = f"{ORGANISATION}/gated-chat-GGUF", f"{ORGANISATION}/private-chat-GGUF"

TINY_CHAT = ChatModel(name="tiny-chat", layers=16, feed_forward=1024)
NANO_CHAT = ChatModel(name="nano-chat", layers=2)
TINY_LLAMA = ChatModel(name="tiny-llama", layers=4)
# Large enough that a person sees its four shards load one after the other.
SMALL_LLAMA = ChatModel(name="small-llama", layers=16, feed_forward=8192)
TINY_EMBED = Bert(name="tiny-embed")
TINY_RERANK = Bert(name="tiny-rerank", reranker=True)

_DEFAULT_DIRECTORY = Path(__file__).resolve().parents[3] / "build" / "hub-models"


def demo_models(directory: Path = _DEFAULT_DIRECTORY) -> Path:
    """Make the weights, or find those that the same makers made before; one folder for each repository.

    About 370 MB, in a few seconds. Several processes may do so at once.
    """
    made = directory / _digest_of_makers()
    if made.exists():
        return made
    directory.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=directory))
    _make(draft)
    try:
        draft.rename(made)
    except OSError:  # another process was first
        shutil.rmtree(draft)
    return made


def demo_repos(hub: HubEmulator, directory: Path = _DEFAULT_DIRECTORY) -> None:
    """Fill an emulator with the repositories ``slipway-demo/…`` and the account that may read all of them."""
    models = demo_models(directory)

    def add(name: str, text: str, *, extra: dict[str, Source] | None = None, **fields: Any) -> None:
        repo_id = f"{ORGANISATION}/{name}"
        hub_fields = {key: fields.pop(key) for key in _HUB_FIELDS if key in fields}
        described: dict[str, Source] = {"README.md": card(name, text, **fields), ".gitattributes": GITATTRIBUTES}
        hub.add_repo(repo_id, described, **hub_fields)
        hub.catalogue.repos[repo_id].commit({**files_under(models / name), **(extra or {})}, title="Upload weights")
        hub.catalogue.repos[repo_id].tag("v1.0")

    hub.add_user(USER, TOKEN, [GATED, PRIVATE])
    chat: dict[str, Any] = {
        "pipeline_tag": "text-generation",
        "base_model": f"{ORGANISATION}/tiny-llama",
        "tags": ["llama.cpp"],
    }
    add("tiny-chat-GGUF", "Says one sentence, in six files.", downloads=41_000, likes=310, trending=90, **chat)
    add("nano-chat-GGUF", "The same in two layers, a folder each.", downloads=900, likes=12, trending=7, **chat)
    add("gated-chat-GGUF", "Ask for access first.", downloads=5_000, likes=80, gated="manual", **chat)
    add("private-chat-GGUF", "Not for everyone.", private=True, **chat)
    add(
        "tiny-llama",
        "Four shards, with the copies in other formats that old repositories carry.",
        extra=_other_formats(),
        downloads=12_000,
        likes=150,
        trending=40,
        xet=True,
        pipeline_tag="text-generation",
        library_name="transformers",
    )
    add(
        "small-llama",
        "Four shards of 53 MB.",
        downloads=2_000,
        likes=25,
        trending=12,
        xet=True,
        pipeline_tag="text-generation",
        library_name="transformers",
    )
    for kind, task in (("embed", "feature-extraction"), ("rerank", "text-ranking")):
        library = "sentence-transformers"
        text = f"A BERT for {task}."
        add(f"tiny-{kind}", text, downloads=3_000, likes=20, pipeline_tag=task, library_name=library)
        base = f"{ORGANISATION}/tiny-{kind}"
        add(f"tiny-{kind}-GGUF", text, downloads=700, likes=5, pipeline_tag=task, base_model=base)


_HUB_FIELDS = ("downloads", "likes", "trending", "gated", "private", "xet")


def _make(directory: Path) -> None:
    chat = directory / "tiny-chat-GGUF"
    for name in ("Q4_K_M", "Q8_0", "F16", "BF16"):
        chat_gguf.write(TINY_CHAT, name, chat / f"tiny-chat-{name}.gguf")
    chat_gguf.write(TINY_CHAT, "F32", chat / "tiny-chat-F32.gguf", parts=3)
    mmproj.write(chat / "mmproj-tiny-chat-F16.gguf", name="tiny-chat", width=TINY_CHAT.hidden)
    nano = directory / "nano-chat-GGUF"
    chat_gguf.write(NANO_CHAT, "Q4_K_M", nano / "Q4_K_M" / "nano-chat-Q4_K_M.gguf")
    chat_gguf.write(NANO_CHAT, "F16", nano / "F16" / "nano-chat-F16.gguf", parts=2)
    for name in ("gated-chat", "private-chat"):
        chat_gguf.write(NANO_CHAT, "Q8_0", directory / f"{name}-GGUF" / f"{name}-Q8_0.gguf")
    chat_folder.write(TINY_LLAMA, directory / "tiny-llama", shards=4)
    chat_folder.write(SMALL_LLAMA, directory / "small-llama", shards=4)
    for model in (TINY_EMBED, TINY_RERANK):
        bert_files.write_folder(model, directory / model.name)
        bert_files.write_gguf(model, directory / f"{model.name}-GGUF" / f"{model.name}-F16.gguf")


def _other_formats() -> dict[str, Source]:
    """Files that a selection should leave out: what they hold is nothing, but they cost as much as the weights."""
    names = (
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
    )
    return {name: Random(5 << 20, seed) for seed, name in enumerate(names)}


def _digest_of_makers() -> str:
    """Changes whenever a maker does."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
