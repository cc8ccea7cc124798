"""Naming the model in a request without touching anything else."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_runner.gateway.body import Malformed, parse

NAME = "served"


@pytest.mark.parametrize(
    ("before", "model", "after"),
    [
        (b'{"model": "qwen"}', "qwen", b'{"model": "served"}'),
        (b'{"model":null,"n":1}', None, b'{"model":"served","n":1}'),
        (b'{"n":1,"model":""}', "", b'{"n":1,"model":"served"}'),
        (b"{}", None, b'{"model": "served"}'),
        (b"{ \n}", None, b'{"model": "served" \n}'),
        (b'  {"n":1}\n', None, b'  {"model": "served", "n":1}\n'),
        (b'{"messages":[{"model":"inner"}]}', None, b'{"model": "served", "messages":[{"model":"inner"}]}'),
        (
            b'{"a":{"model":"x"},"model" \t: \r\n"y" ,"b":[]}',
            "y",
            b'{"a":{"model":"x"},"model" \t: \r\n"served" ,"b":[]}',
        ),
        (b'{"mod\\u0065l":"x"}', "x", b'{"mod\\u0065l":"served"}'),
        (b'{"\\u006d\\u006f\\u0064\\u0065\\u006c":"x"}', "x", b'{"\\u006d\\u006f\\u0064\\u0065\\u006c":"served"}'),
        (b'{"model":"\\u0071wen\\"\\\\"}', 'qwen"\\', b'{"model":"served"}'),
        ('{"ключ":"модель 🦙","model":"ü"}'.encode(), "ü", '{"ключ":"модель 🦙","model":"served"}'.encode()),
        # What an encoder would change: big and exact numbers, members that are there twice, lone surrogates, order.
        (
            b'{"n":123456789012345678901234567890,"f":1e400,"g":0.10,"n":-0,"s":"\\ud800","model":"m","x":NaN}',
            "m",
            b'{"n":123456789012345678901234567890,"f":1e400,"g":0.10,"n":-0,"s":"\\ud800","model":"served","x":NaN}',
        ),
        (b'{"text":"\\"model\\": {[","model":"m"}', "m", b'{"text":"\\"model\\": {[","model":"served"}'),
        (b'{"text":"model","t":"\\\\","model":"m"}', "m", b'{"text":"model","t":"\\\\","model":"served"}'),
        (
            b'{"models":"a","Model":"b","mode":"c","model":"m"}',
            "m",
            b'{"models":"a","Model":"b","mode":"c","model":"served"}',
        ),
    ],
)
def test_only_the_name_changes(before: bytes, model: str | None, after: bytes) -> None:
    body = parse(before)
    assert body.model == model
    assert body.naming(NAME) == after


def test_a_body_that_has_the_name_already_is_the_same_object() -> None:
    raw = b'{ "model" : "served" }'
    assert parse(raw).naming("served") is raw


@pytest.mark.parametrize("name", ['a"b', "ü/🦙", "a\\b", "\n"])
def test_any_name_can_be_put_in(name: str) -> None:
    for raw in (b'{"model":"x","n":1}', b'{"n":1}'):
        assert json.loads(parse(raw).naming(name)) == {"model": name, "n": 1}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"model"',
        b"model=qwen",
        b"{",
        b'{"model"',
        b'{"model":',
        b'{"model":"qwen',
        b'{"model":"qwen"',
        b'{"a":[{}',
        b'{"a":"\\"}',
        b'{"model":5}',
        b'{"model":["a"]}',
        b'{"model":{"a":1}}',
        b'{"model":true}',
        b'{"model":nullable}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a","n":1,"mod\\u0065l":"b"}',
        b'{"model":"\xff"}',
        b'{"model":"\\x"}',
        "﻿{}".encode(),
        '{"model":"a"}'.encode("utf-16"),
    ],
)
def test_what_names_no_model_in_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed, match="Send a JSON object"):
        parse(raw)


TEXT = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from('"\\{}[]:, model'), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.just("model"), inner, max_size=4),
    max_leaves=12,
)
REQUESTS = st.tuples(st.dictionaries(TEXT, JSON, max_size=5), st.none() | TEXT, st.booleans())


@given(REQUESTS, TEXT, st.booleans(), st.sampled_from([None, 1]))
def test_any_request_comes_out_as_it_was_but_for_its_model(
    request: tuple[dict[str, Any], str | None, bool], name: str, ascii_only: bool, indent: int | None
) -> None:
    document, model, named = request
    document.pop("model", None)
    if named:
        place = len(document) // 2
        items = [*document.items()]
        document = dict([*items[:place], ("model", model), *items[place:]])
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    body = parse(raw)
    assert body.model == (model if named else None)
    told = body.naming(name)
    assert json.loads(told) == {**document, "model": name}
    assert told.startswith(raw[: body.start])
    assert told.endswith(raw[body.end :])


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ model', max_size=60).map(str.encode))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        body = parse(raw)
    except Malformed:
        return
    assert raw[: body.start] + raw[body.start : body.end] + raw[body.end :] == raw


MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "filling",
    [
        b"[" * MEGABYTE,
        b'"' + b"\\\\" * (MEGABYTE // 2) + b'":',
        b'"' + b'\\"' * (MEGABYTE // 2) + b'":',
        b'"a":1,' * (MEGABYTE // 6),
        b'{"":' * (MEGABYTE // 4),
    ],
)
def test_hostile_bodies_take_time_in_proportion(filling: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Malformed):
        parse(b"{" + filling)
    assert time.process_time() - began < 5.0  # a fraction of a second; a square of it would be minutes
