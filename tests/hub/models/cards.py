"""What lies beside the weights: model cards and .gitattributes."""

import json
from collections.abc import Mapping

from tests.hub.files import LFS_PATTERNS

GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)


def card(title: str, text: str, **fields: object) -> str:
    """A README.md whose header is read by the Hub; values are written as JSON, which YAML includes."""
    header: Mapping[str, object] = {"license": "apache-2.0", "language": ["en"], **fields}
    lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in header.items())
    return f"---\n{lines}---\n\n# {title}\n\n{text}\n"
