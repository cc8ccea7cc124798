"""Xet storage: files as runs of chunks, chunks packed in xorbs, each chunk kept once.

Chunks are cut at fixed offsets where the real service cuts by content, and hashes are not Merkle hashes: readers
follow what the reconstruction says and check neither (hf-xet 1.8).
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.hub.bodies import Body, FileSlice, Segment, length
from tests.hub.content import Blob
from tests.hub.messages import RangeError

# The format's bounds: chunks of at most 128 KiB, xorbs of at most 64 MiB with their frames.
CHUNK_BYTES = 128 << 10
_FRAME_BYTES = 8
_XORB_CHUNKS = (64 << 20) // (CHUNK_BYTES + _FRAME_BYTES)
# Finding equal chunks means hashing each; above this size a file is taken to share none.
_DEDUP_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Xorb:
    """Chunks stored together, each a slice of some blob."""

    hash: str
    chunks: Sequence[FileSlice]

    def body(self) -> Body:
        """The serialised xorb: version, stored length, scheme (0: as is) and plain length before each chunk.

        Lengths are 24 bits, little endian.
        """
        segments: list[Segment] = []
        for chunk in self.chunks:
            count = (chunk.stop - chunk.start).to_bytes(3, "little")
            segments += [b"\0" + count + b"\0" + count, chunk]
        return tuple(segments)


@dataclass(frozen=True, slots=True)
class Term:
    """Chunks ``first`` to ``end`` (exclusive) of a xorb, in the order of the file."""

    xorb: Xorb
    first: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of the file that this term holds."""
        return length(tuple(self.xorb.chunks[self.first : self.end]))


@dataclass(slots=True)
class XetStore:
    """All xorbs, and for each file how to rebuild it."""

    xorbs: dict[str, Xorb] = field(default_factory=dict)
    files: dict[str, Sequence[Term]] = field(default_factory=dict)
    _chunk_homes: dict[bytes, tuple[Xorb, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, blob: Blob) -> str:
        """Store a blob; its xet hash, which equal content shares."""
        file_hash = hashlib.sha256(b"xet" + bytes.fromhex(blob.sha256)).hexdigest()
        with self._lock:
            if file_hash not in self.files:
                self.files[file_hash] = self._store(file_hash, blob)
        return file_hash

    def reconstruction(self, file_hash: str, span: tuple[int, int] | None) -> dict[str, Any] | None:
        """How to rebuild bytes ``span`` (half open; None: all) of a file, with links still to be put in.

        Raises:
            RangeError: the span begins past the end.
        """
        terms = self.files.get(file_hash)
        if terms is None:
            return None
        total = sum(term.size for term in terms)
        start, stop = span or (0, total)
        if start >= total and total:
            raise RangeError(total)
        wanted, skipped = _trim(terms, start, min(stop, total))
        return {
            "offset_into_first_range": skipped,
            "terms": [
                {
                    "hash": term.xorb.hash,
                    "unpacked_length": term.size,
                    "range": {"start": term.first, "end": term.end},
                }
                for term in wanted
            ],
            "fetch_info": {
                term.xorb.hash: [_fetch(other) for other in wanted if other.xorb is term.xorb] for term in wanted
            },
        }

    def _store(self, file_hash: str, blob: Blob) -> Sequence[Term]:
        if blob.size > _DEDUP_BYTES:
            return [Term(xorb, 0, len(xorb.chunks)) for xorb in self._pack(file_hash, list(_chunks(blob)))]
        digests = [_digest(chunk) for chunk in _chunks(blob)]
        fresh = {
            digest: chunk
            for digest, chunk in zip(digests, _chunks(blob), strict=True)
            if digest not in self._chunk_homes
        }
        homes = [
            (xorb, index) for xorb in self._pack(file_hash, list(fresh.values())) for index in range(len(xorb.chunks))
        ]
        self._chunk_homes |= dict(zip(fresh, homes, strict=True))
        return _runs([self._chunk_homes[digest] for digest in digests])

    def _pack(self, file_hash: str, chunks: Sequence[FileSlice]) -> list[Xorb]:
        packed = []
        for first in range(0, len(chunks), _XORB_CHUNKS):
            name = hashlib.sha256(f"{file_hash}:{first}".encode()).hexdigest()
            packed.append(Xorb(name, chunks[first : first + _XORB_CHUNKS]))
        self.xorbs |= {xorb.hash: xorb for xorb in packed}
        return packed


def _chunks(blob: Blob) -> Iterator[FileSlice]:
    for start in range(0, blob.size, CHUNK_BYTES):
        yield FileSlice(blob.fd, start, min(start + CHUNK_BYTES, blob.size))


def _digest(chunk: FileSlice) -> bytes:
    return hashlib.sha256(os.pread(chunk.fd, chunk.stop - chunk.start, chunk.start)).digest()


def _runs(homes: Sequence[tuple[Xorb, int]]) -> Sequence[Term]:
    """Join neighbours in a file that are neighbours in a xorb."""
    terms: list[Term] = []
    for xorb, index in homes:
        if terms and terms[-1].xorb is xorb and terms[-1].end == index:
            terms[-1] = Term(xorb, terms[-1].first, index + 1)
        else:
            terms.append(Term(xorb, index, index + 1))
    return terms


def _trim(terms: Sequence[Term], start: int, stop: int) -> tuple[list[Term], int]:
    """The chunks that hold bytes ``start`` to ``stop``, and how many bytes of the first come before ``start``."""
    wanted: list[Term] = []
    skipped, at = 0, 0
    for term in terms:
        if at >= stop:
            break
        size = term.size
        if at + size <= start:
            at += size
            continue
        first, end = None, term.first
        for index in range(term.first, term.end):
            chunk = term.xorb.chunks[index]
            count = chunk.stop - chunk.start
            if first is None and at + count > start:
                first = index
                if not wanted:
                    skipped = start - at
            if first is not None and at < stop:
                end = index + 1
            at += count
        if first is not None:
            wanted.append(Term(term.xorb, first, end))
    return wanted, skipped


def _fetch(term: Term) -> dict[str, Any]:
    """Where the chunks of a term lie in its serialised xorb; the end is inclusive there."""
    before = tuple(term.xorb.chunks[: term.first])
    start = length(before) + _FRAME_BYTES * len(before)
    count = term.size + _FRAME_BYTES * (term.end - term.first)
    return {
        "range": {"start": term.first, "end": term.end},
        "url": f"/xorbs/{term.xorb.hash}",
        "url_range": {"start": start, "end": start + count - 1},
    }
