"""Where the bytes of repository files are: on disk, hashed once, opened once, however large."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.hub.bodies import FileSlice

_PIECE_BYTES = 4 << 20
# In sparse content this much at the start of every stride is random, so a wrong offset does not go unnoticed.
_ISLAND_BYTES = 4 << 10
_STRIDE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Random:
    """Synthetic content without repetition, determined by size (bytes) and seed."""

    size: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sparse:
    """Synthetic content that is nearly all holes: large to a client, a few pages on disk.

    ``sha256`` may be claimed, for sizes that nobody reads whole and that take minutes to hash.
    """

    size: int
    seed: int = 0
    sha256: str | None = None


Source = bytes | str | Path | Random | Sparse


@dataclass(frozen=True, slots=True)
class Blob:
    """Content on disk: hashed and open."""

    path: Path
    size: int
    sha256: str
    fd: int

    def slice(self) -> FileSlice:
        """The whole content, for a body."""
        return FileSlice(self.fd, 0, self.size)


class BlobStore:
    """Makes blobs of sources.

    Synthetic content is kept under ``directory`` with its hashes beside it and found again by the next process;
    without a directory everything is temporary.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._temporary = directory is None
        self._root = Path(tempfile.mkdtemp(prefix="hub-blobs-")) if directory is None else directory
        self._root.mkdir(parents=True, exist_ok=True)
        self._by_name: dict[str, Blob] = {}
        self._lock = threading.Lock()

    def put(self, source: Source) -> Blob:
        """The blob of a source: written if it is not a file yet, hashed, open."""
        with self._lock:
            match source:
                case str():
                    return self._put_bytes(source.encode())
                case bytes():
                    return self._put_bytes(source)
                case Path():
                    stat = source.stat()
                    name = f"{source.resolve()}:{stat.st_mtime_ns}:{stat.st_size}"
                    return self._by_name.get(name) or self._open(name, source, _hash(source))
                case Random(size, seed):
                    return self._put_synthetic(f"random-{size}-{seed}", source)
                case Sparse(size, seed, sha256):
                    return self._put_synthetic(f"sparse-{size}-{seed}-{sha256 or 'true'}", source)

    def close(self) -> None:
        """Close every file and delete what was temporary."""
        with self._lock:
            for blob in self._by_name.values():
                os.close(blob.fd)
            self._by_name.clear()
            if self._temporary:
                shutil.rmtree(self._root, ignore_errors=True)

    def _put_bytes(self, data: bytes) -> Blob:
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in self._by_name:
            return self._by_name[sha256]
        path = self._root / sha256
        _write_whole(path, iter([data]))
        return self._open(sha256, path, sha256)

    def _put_synthetic(self, name: str, source: Random | Sparse) -> Blob:
        if name in self._by_name:
            return self._by_name[name]
        path, noted = self._root / name, self._root / f"{name}.sha256"
        if not noted.exists():
            if isinstance(source, Random):
                sha256 = _write_whole(path, random_pieces(source.size, source.seed))
            else:
                _write_sparse(path, source)
                sha256 = source.sha256 or _hash(path)
            _write_whole(noted, iter([sha256.encode()]))
        return self._open(name, path, noted.read_text())

    def _open(self, name: str, path: Path, sha256: str) -> Blob:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        blob = Blob(path, os.fstat(fd).st_size, sha256, fd)
        self._by_name[name] = blob
        return blob


def random_pieces(size: int, seed: int) -> Iterator[bytes]:
    """``size`` reproducible random bytes in pieces; raw generator output, which numpy never changes."""
    generator = np.random.PCG64(seed)
    for offset in range(0, size, _PIECE_BYTES):
        count = min(_PIECE_BYTES, size - offset)
        yield generator.random_raw((count + 7) // 8).tobytes()[:count]


def git_sha1(data: bytes) -> str:
    """The object id that git gives to a blob: over ``blob <size>\\0`` and the content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, pieces: Iterator[bytes]) -> str:
    """Write a file that is there whole or not at all, since others may share the directory; its sha256."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    sha256 = hashlib.sha256()
    with partial.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            sha256.update(piece)
    partial.replace(path)
    return sha256.hexdigest()


def _write_sparse(path: Path, source: Sparse) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        for island, offset in enumerate(range(0, source.size, _STRIDE_BYTES)):
            count = min(_ISLAND_BYTES, source.size - offset)
            file.seek(offset)
            file.write(b"".join(random_pieces(count, source.seed * 1_000_003 + island)))
        file.truncate(source.size)
    partial.replace(path)
