from pathlib import Path

import pytest
from slipway_registry.hub.trust import adopt_ca_bundle


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"REQUESTS_CA_BUNDLE": ""}, {}),
        ({"REQUESTS_CA_BUNDLE": "a.pem"}, {"SSL_CERT_FILE": "a.pem"}),
        ({"REQUESTS_CA_BUNDLE": "."}, {"SSL_CERT_DIR": "."}),
        ({"REQUESTS_CA_BUNDLE": "a.pem", "SSL_CERT_FILE": "b.pem"}, {"SSL_CERT_FILE": "b.pem"}),
        ({"REQUESTS_CA_BUNDLE": "a.pem", "SSL_CERT_DIR": "b"}, {"SSL_CERT_DIR": "b"}),
    ],
)
def test_requests_bundle_is_taken_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    adopt_ca_bundle(before)
    before.pop("REQUESTS_CA_BUNDLE", None)
    assert before == after
