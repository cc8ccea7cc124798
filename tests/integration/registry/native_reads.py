"""What other programs do with a cache; each function is called in a process of its own."""

from pathlib import Path

from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError


def offline(repo: str, revision: str, patterns: list[str] | None) -> list[str] | str:
    """The files that an offline snapshot has; the exception's name if it is refused."""
    try:
        snapshot = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError as error:
        return type(error).__name__
    return sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file())


def scan() -> dict[str, object]:
    """Repositories with their refs, and warnings."""
    found = scan_cache_dir()
    refs = {repo.repo_id: sorted(ref for revision in repo.revisions for ref in revision.refs) for repo in found.repos}
    return {"refs": refs, "warnings": [str(warning) for warning in found.warnings]}
