"""The documentation says what the programs do."""

import re
from pathlib import Path

import pytest
from slipway_registry.config import RegistrySettings
from slipway_runner.config import RunnerSettings
from slipway_service.config import ServiceSettings
from slipway_service.options import markdown

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("settings", [RegistrySettings, RunnerSettings])
def test_every_option_is_documented_as_help_prints_it(settings: type[ServiceSettings]) -> None:
    assert markdown(settings) in (ROOT / "docs/configuration.md").read_text(), (
        "docs/configuration.md is out of date: run make docs"
    )


def test_links_within_the_documentation_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    missing = [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]

    assert links, "no link was found: the pattern is wrong"
    assert not missing
