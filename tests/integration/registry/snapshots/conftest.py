"""An emulated Hub for every test."""

from tests.hub.fixtures import hub as hub
