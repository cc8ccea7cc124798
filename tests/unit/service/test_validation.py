"""All that is wrong with a request, at once."""

import pytest
from slipway_service.fault import Fault, Reason
from slipway_service.validation import Fields, PageSize, ResourceName, required, resource_id

MODEL = ResourceName.of("models")


def test_all_violations_come_in_one_fault_with_their_paths() -> None:
    fields = Fields()
    spec = fields.under("spec")
    fields.parse("page_size", PageSize.parse, -1)
    spec.under("source").parse("repo_id", required, "")
    fields.parse_all("names", MODEL, ["models/a", "downloads/b"])
    spec.check("context_length", False, "must be positive")
    assert fields.parse("name", MODEL, "models/a") == ResourceName("models", "a")
    with pytest.raises(Fault) as caught, fields:
        pass
    assert caught.value.reason is Reason.INVALID_FIELDS
    assert [found.field for found in caught.value.fields] == [
        "page_size",
        "spec.source.repo_id",
        "names[1]",
        "spec.context_length",
    ]
    assert "spec.context_length: must be positive" in caught.value.text


def test_nothing_wrong_raises_nothing() -> None:
    with Fields() as fields:
        name = fields.parse("name", MODEL, "models/a")
    assert str(name) == "models/a"


def test_what_a_wrong_field_leads_to_is_reported_as_the_wrong_field() -> None:
    with pytest.raises(Fault) as caught, Fields() as fields:
        fields.parse("name", MODEL, "wrong").id.upper()
    assert [found.field for found in caught.value.fields] == ["name"]


def test_defects_of_valid_requests_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError), Fields():
        raise ZeroDivisionError


@pytest.mark.parametrize("identity", ["a", "Qwen2.5-0.5B-Instruct-GGUF", "0", "x" * 128])
def test_ids(identity: str) -> None:
    assert resource_id(identity) == identity
    assert MODEL(f"models/{identity}").id == identity


@pytest.mark.parametrize("identity", ["", ".", "..", "-x", "a/b", "a b", "x" * 129, "ä", "a\n"])
def test_what_is_no_id(identity: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        resource_id(identity)
    with pytest.raises(ValueError, match="models/qwen-7b"):
        MODEL(f"models/{identity}")


@pytest.mark.parametrize(("asked", "got"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_page_sizes_are_coerced(asked: int, got: int) -> None:
    assert PageSize.parse(asked).items == got
