from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hub.bodies import part, read
from tests.hub.content import Blob, BlobStore, Random
from tests.hub.messages import RangeError
from tests.hub.xet import CHUNK_BYTES, XetStore

SIZE = 9 * CHUNK_BYTES + 17


@pytest.fixture(scope="module")
def blob() -> Iterator[Blob]:
    """Content in which the second and the seventh chunk are equal."""
    store = BlobStore()
    data = bytearray(store.put(Random(SIZE, seed=1)).path.read_bytes())
    data[6 * CHUNK_BYTES : 7 * CHUNK_BYTES] = data[CHUNK_BYTES : 2 * CHUNK_BYTES]
    yield store.put(bytes(data))
    store.close()


def rebuild(store: XetStore, file_hash: str, span: tuple[int, int] | None) -> bytes:
    """What a client makes of a reconstruction: the chunks of each term, the first bytes left out."""
    plan = store.reconstruction(file_hash, span)
    assert plan is not None
    data = b""
    for term in plan["terms"]:
        (fetch,) = [f for f in plan["fetch_info"][term["hash"]] if f["range"] == term["range"]]
        body = store.xorbs[term["hash"]].body()
        packed = read(part(body, fetch["url_range"]["start"], fetch["url_range"]["end"] + 1))
        before, chunks = len(data), 0
        while packed:
            count = int.from_bytes(packed[1:4], "little")
            assert packed[0] == packed[4] == 0
            assert count == int.from_bytes(packed[5:8], "little") <= CHUNK_BYTES
            data, packed, chunks = data + packed[8 : 8 + count], packed[8 + count :], chunks + 1
        assert len(data) - before == term["unpacked_length"]
        assert chunks == term["range"]["end"] - term["range"]["start"]
    return data[plan["offset_into_first_range"] :]


def test_the_whole_file_with_one_chunk_kept_once(blob: Blob) -> None:
    store = XetStore()
    assert rebuild(store, store.add(blob), None) == blob.path.read_bytes()
    assert sum(len(xorb.chunks) for xorb in store.xorbs.values()) == 9


@given(start=st.integers(0, SIZE - 1), count=st.integers(1, SIZE))
def test_any_range(blob: Blob, start: int, count: int) -> None:
    store = XetStore()
    stop = min(SIZE, start + count)
    rebuilt = rebuild(store, store.add(blob), (start, start + count))
    assert rebuilt[: stop - start] == blob.path.read_bytes()[start:stop]
    assert len(rebuilt) < stop - start + CHUNK_BYTES


def test_past_the_end(blob: Blob) -> None:
    store = XetStore()
    with pytest.raises(RangeError):
        store.reconstruction(store.add(blob), (SIZE, SIZE + 1))
    assert store.reconstruction("0" * 64, None) is None
