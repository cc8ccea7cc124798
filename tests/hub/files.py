"""Files of a repository: how each is stored, and the names that git, LFS and Xet have for it."""

import fnmatch
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from tests.hub.content import Blob, Source, git_sha1

# What the Hub's default .gitattributes hands to LFS, as far as models use it; larger files go there by rule.
LFS_PATTERNS = ("*.bin", "*.gguf", "*.h5", "*.model", "*.msgpack", "*.onnx", "*.ot", "*.pt", "*.pth", "*.safetensors")
_LFS_ABOVE_BYTES = 10 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpec:
    """A file with particulars: ``etag`` is what the Hub claims instead of the hash, ``size`` likewise."""

    source: Source
    lfs: bool | None = None
    xet: bool | None = None
    etag: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a commit."""

    path: str
    blob: Blob
    lfs: bool
    xet_hash: str | None
    etag: str
    size: int

    @property
    def pointer(self) -> bytes:
        """What git holds for an LFS file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.etag}\nsize {self.size}\n".encode()

    @property
    def oid(self) -> str:
        """The git object id: of the pointer for LFS."""
        return git_sha1(self.pointer) if self.lfs else self.etag


def file_of(
    path: str, spec: FileSpec, *, blob: Blob, patterns: Collection[str], xet_hash: Callable[[Blob], str] | None
) -> File:
    """Decide how a file is stored: in LFS by pattern or size, in Xet only if in LFS."""
    name = path.rpartition("/")[2]
    matched = any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    lfs = matched or blob.size > _LFS_ABOVE_BYTES if spec.lfs is None else spec.lfs
    file = File(
        path=path,
        blob=blob,
        lfs=lfs,
        xet_hash=None,
        etag=spec.etag or (blob.sha256 if lfs else git_sha1(blob.path.read_bytes())),
        size=blob.size if spec.size is None else spec.size,
    )
    return replace(file, xet_hash=xet_hash(blob)) if lfs and xet_hash else file
