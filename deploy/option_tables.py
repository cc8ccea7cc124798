"""Writes the tables of options in docs/configuration.md anew: ``make docs``."""

import re
from pathlib import Path

from slipway_registry.config import RegistrySettings
from slipway_runner.config import RunnerSettings
from slipway_service.options import markdown

PAGE = Path(__file__).resolve().parents[1] / "docs/configuration.md"


def main() -> None:
    text = PAGE.read_text()
    for settings in (RegistrySettings, RunnerSettings):
        table = rf"(## {settings.program} serve\n\n)(?:\|.*\n)+"
        text = re.sub(table, lambda match, settings=settings: match[1] + markdown(settings), text)  # type: ignore[misc]
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
