"""What a download is doing while it runs: its blobs, and the figures made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from slipway_service.weights.files import RepoFile

from slipway_registry.jobs.board import Waiter
from slipway_registry.jobs.obtain import Standing
from slipway_registry.jobs.progress import Rate
from slipway_registry.jobs.records import Progress


@dataclass(slots=True, eq=False)
class BlobRun:
    """One blob of a running download; several files may share it."""

    file: RepoFile
    files: int
    verified: bool
    known: int  # bytes, as last seen
    left: int = 0  # of them, while it is not whole: left by an earlier attempt
    waiter: Waiter | None = None
    mismatches: int = 0
    losses: int = 0

    @property
    def done(self) -> int:
        """Bytes that are on the disk."""
        if self.verified:
            return self.file.size_bytes
        if self.waiter and self.waiter.gauge:
            self.known = self.waiter.gauge.done
        return self.known

    def give_up(self) -> None:
        """What was there is wrong or gone."""
        self.waiter, self.known, self.left = None, 0, 0
        self.losses += 1

    def rest(self) -> None:
        """No work is under way any more."""
        self.known, self.waiter = self.done, None

    @property
    def fetched(self) -> bool:
        """Whether only hashing remains, or not even that."""
        return self.verified or (self.waiter is not None and self.waiter.fetched)


@dataclass(slots=True, eq=False)
class Run:
    """One attempt of one download."""

    blobs: list[BlobRun]
    cached: int
    kept: int  # bytes of whole blobs that earlier attempts have fetched
    resumed_at_most: int | None = None
    floor: int = 0  # progress shown must not fall below this, unless `reset` says why
    rate: Rate = field(default_factory=Rate)

    @classmethod
    def begin(
        cls,
        files: Sequence[RepoFile],
        standings: Sequence[Standing],
        before: Progress,
        *,
        first: bool,
        resumed_at_most: int | None = None,
    ) -> "Run":
        """A run over these files, of which the survey found so much (one standing per file).

        Args:
            first: no attempt was before: what is whole was in the cache.
            resumed_at_most: for another look in the same attempt, what was resumed at the first: the rest it fetched.
        """
        blobs: dict[str, BlobRun] = {}
        for file, standing in zip(files, standings, strict=True):
            known = file.size_bytes if standing.verified else standing.partial_bytes
            made = BlobRun(file=file, files=0, verified=standing.verified, known=known, left=standing.partial_bytes)
            blobs.setdefault(file.blob_id, made).files += 1
        found = sum(blob.file.size_bytes for blob in blobs.values() if blob.verified)
        cached = found if first else min(found, before.cached_bytes)
        return cls(
            blobs=list(blobs.values()),
            cached=cached,
            kept=found - cached,
            resumed_at_most=resumed_at_most,
            floor=min(before.done_bytes, sum(blob.known for blob in blobs.values())),
        )

    @property
    def missing(self) -> list[BlobRun]:
        """What is not verified and in place."""
        return [blob for blob in self.blobs if not blob.verified]

    @property
    def resumed(self) -> int:
        """Bytes that are there from earlier attempts."""
        resumed = self.kept + sum(blob.left for blob in self.blobs)
        return resumed if self.resumed_at_most is None else min(resumed, self.resumed_at_most)

    @property
    def fetched(self) -> bool:
        """Whether all bytes of all blobs are there."""
        return all(blob.fetched for blob in self.blobs)

    def reset(self) -> None:
        """Bytes turned out to be wrong, or were deleted: progress may go back."""
        self.floor = 0

    def progress(self, at: float) -> Progress:
        """The figures now; `at` is monotonic time in seconds."""
        done = self.floor = max(self.floor, sum(blob.done for blob in self.blobs))
        total = sum(blob.file.size_bytes for blob in self.blobs)
        self.rate.add(done, at)
        return Progress(
            done_bytes=done,
            total_bytes=total,
            cached_bytes=self.cached,
            resumed_bytes=self.resumed,
            done_files=sum(blob.files for blob in self.blobs if blob.verified),
            total_files=sum(blob.files for blob in self.blobs),
            bytes_per_second=self.rate.bytes_per_second,
            eta_seconds=self.rate.eta(total - done),
            files_in_flight=tuple(blob.file.path for blob in self.blobs if blob.waiter and blob.waiter.gauge),
        )


def at_rest(progress: Progress) -> Progress:
    """The figures of a download that does not run (any more)."""
    return replace(progress, bytes_per_second=None, eta_seconds=None, files_in_flight=())
