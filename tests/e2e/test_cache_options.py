"""How the cache is laid out is the operator's choice."""

from pathlib import Path

from tests.e2e.stack import Stack


def test_a_groups_cache_without_links_filled_over_xet(hub_endpoint: str, tmp_path: Path) -> None:
    stack = Stack(
        tmp_path, hub_endpoint, "--group-shared", "--transport=XET", environment={"HF_HUB_DISABLE_SYMLINKS": "1"}
    )
    stack.start()
    try:
        last = stack.slipway("--json", "pull", "slipway-demo/tiny-llama").lines[-1]
        assert last["state"] == "DOWNLOAD_STATE_SUCCEEDED"
        snapshot = stack.hub_cache / last["snapshotPath"]
        files = [path for path in snapshot.rglob("*") if path.is_file()]
        assert len(files) == last["progress"]["totalFiles"]
        assert not any(path.is_symlink() for path in files)
        assert {path.stat().st_mode & 0o7777 for path in files} == {0o664}
        assert snapshot.stat().st_mode & 0o7777 == 0o2775
    finally:
        stack.stop()
