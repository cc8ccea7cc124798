"""The ``hf`` command, unmodified, against the emulator."""

import json
from pathlib import Path

from tests.hub.emulator import HubEmulator
from tests.hub.models.demo import GATED, TOKEN
from tests.integration.hub.clients import Native


def test_download_of_selected_files(demo_hub: HubEmulator, demo_native: Native) -> None:
    repo = "slipway-demo/nano-chat-GGUF"
    done = demo_native.hf("download", repo, "--include", "Q4_K_M/*", "--revision", "v1.0")
    assert done.returncode == 0, done.stderr
    (found,) = demo_native.cache.glob("models--slipway-demo--nano-chat-GGUF/snapshots/*/Q4_K_M/*.gguf")
    file = demo_hub.catalogue.repos[repo].head.files["Q4_K_M/nano-chat-Q4_K_M.gguf"]
    assert found.resolve().name == file.etag
    assert found.read_bytes() == file.blob.path.read_bytes()


def test_cache_listed_verified_and_pruned(hub: HubEmulator, native: Native) -> None:
    repo = hub.add_repo("org/name", {"README.md": "old", "w.safetensors": b"w" * 5000})
    assert native.hf("download", "org/name").returncode == 0
    old = repo.head.id
    repo.commit({"README.md": "new"})
    assert native.hf("download", "org/name").returncode == 0
    listed = native.hf("cache", "ls", "--revisions", "--format", "json")
    assert {entry["revision"] for entry in json.loads(listed.stdout)} == {old, repo.head.id}
    verified = native.hf("cache", "verify", "org/name")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert native.hf("cache", "prune", "--yes").returncode == 0
    kept = [path.name for path in native.cache.glob("models--org--name/snapshots/*")]
    assert kept == [repo.head.id]


def test_verify_fails_on_a_changed_file(hub: HubEmulator, native: Native) -> None:
    hub.add_repo("org/name", {"w.safetensors": b"w" * 5000})
    assert native.hf("download", "org/name").returncode == 0
    (blob,) = native.cache.glob("models--org--name/blobs/*")
    blob.write_bytes(b"x" * 5000)
    assert native.hf("cache", "verify", "org/name").returncode != 0


def test_models_listed_and_shown(demo_native: Native) -> None:
    listed = demo_native.hf("models", "ls", "--search", "tiny-chat", "--format", "json")
    assert [model["id"] for model in json.loads(listed.stdout)] == ["slipway-demo/tiny-chat-GGUF"]
    shown = demo_native.hf("models", "info", "slipway-demo/tiny-llama", "--format", "json")
    assert json.loads(shown.stdout)["pipeline_tag"] == "text-generation"


def test_login_and_a_gated_download(demo_native: Native, tmp_path: Path) -> None:
    refused = demo_native.hf("download", GATED)
    assert refused.returncode != 0
    assert "gated" in (refused.stdout + refused.stderr).lower() or "restricted" in refused.stderr
    logged_in = demo_native.hf("auth", "login", "--token", TOKEN)
    assert logged_in.returncode == 0, logged_in.stdout + logged_in.stderr
    assert "demo" in demo_native.hf("auth", "whoami").stdout
    local = tmp_path / "local"
    assert demo_native.hf("download", GATED, "--local-dir", str(local)).returncode == 0
    assert (local / "gated-chat-Q8_0.gguf").stat().st_size > 1_000_000
