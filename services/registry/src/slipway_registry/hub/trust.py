"""Whose certificates are believed: one answer for the Hub's API, for the bytes of files, and for hf-xet."""

import os
from collections.abc import MutableMapping


def adopt_ca_bundle(environment: MutableMapping[str, str]) -> None:
    """Take REQUESTS_CA_BUNDLE, which operators have set since huggingface_hub used requests, for SSL_CERT_FILE.

    httpx and hf-xet know SSL_CERT_FILE and SSL_CERT_DIR only, which go before it. Call this before either is used.
    """
    bundle = environment.get("REQUESTS_CA_BUNDLE")
    if bundle and not environment.get("SSL_CERT_FILE") and not environment.get("SSL_CERT_DIR"):
        environment["SSL_CERT_DIR" if os.path.isdir(bundle) else "SSL_CERT_FILE"] = bundle
