"""Page tokens."""

import pytest
from slipway.registry.v1 import download_service_pb2
from slipway.runner.v1 import model_service_pb2
from slipway_service.fault import Fault, Reason
from slipway_service.paging import PageTokens

Request = download_service_pb2.ListDownloadsRequest

TOKENS = PageTokens(b"key")
TOKEN = TOKENS.seal("downloads/17", Request(page_size=10))


def test_a_token_leads_on_even_with_another_page_size() -> None:
    assert TOKENS.open(TOKEN, Request(page_size=20, page_token=TOKEN)) == "downloads/17"
    assert PageTokens(b"key").open(TOKEN, Request()) == "downloads/17", "a replica with the key continues"


def test_no_token_is_the_first_page() -> None:
    assert TOKENS.open("", Request()) is None


def test_positions_may_be_anything() -> None:
    position = "https://hub/api?cursor=ä/%20" * 40
    assert TOKENS.open(TOKENS.seal(position, Request()), Request()) == position


@pytest.mark.parametrize("token", ["x", "!!", "AAAA", TOKEN[:-2], TOKEN + "AA", "B" + TOKEN[1:], TOKEN[:-1] + "B", "ä"])
def test_what_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(Fault) as caught:
        TOKENS.open(token, Request())
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


def test_a_token_of_another_list_filter_or_key_is_refused() -> None:
    other = model_service_pb2.ListModelsRequest()
    filtered = Request(repo_id="org/repo")
    for tokens, request in ((TOKENS, other), (TOKENS, filtered), (PageTokens(), Request())):
        with pytest.raises(Fault):
            tokens.open(TOKEN, request)
