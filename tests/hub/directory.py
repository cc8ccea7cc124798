"""Repositories from a directory: ``DIR/<organisation>/<name>/<files>``.

A ``.hub.json`` in a repository's directory holds fields of `Catalogue.add` (gated, downloads, xet ...).
"""

import json
from pathlib import Path
from typing import Any

from tests.hub.catalogue import Catalogue
from tests.hub.content import Source
from tests.hub.repos import Repo

_FIELDS = ".hub.json"


def files_under(directory: Path) -> dict[str, Source]:
    """Every file below a directory, by its relative path."""
    return {
        path.relative_to(directory).as_posix(): path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != _FIELDS
    }


def load(catalogue: Catalogue, directory: Path) -> list[Repo]:
    """Add every repository of a directory.

    Raises:
        OSError: it cannot be read.
    """
    repos = []
    for path in sorted(directory.glob("*/*/")):
        fields: dict[str, Any] = {}
        if (path / _FIELDS).exists():
            fields = json.loads((path / _FIELDS).read_text())
        repo_id = path.relative_to(directory).as_posix()
        repos.append(catalogue.add(repo_id, files_under(path), **fields))
    return repos
