import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.fixtures import demo_hub as demo_hub
from tests.hub.fixtures import hub as hub
from tests.hub.fixtures import session_demo_hub as session_demo_hub


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may enter; pytest closes its own again whenever another session begins."""
    path = Path(tempfile.mkdtemp(prefix="slipway-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
