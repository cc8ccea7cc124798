"""The pins there are: taken, renewed, ended, expired, and asked to be released."""

import threading
import uuid
from collections.abc import Collection
from dataclasses import replace

from slipway_service.fault import Fault, Precondition, Reason
from slipway_service.weights.names import Commit, RepoId

from slipway_registry.cache.pin import Pin
from slipway_registry.cache.records import CacheRecords, Key

_RETRY = 5.0
"""Seconds after which a deletion in progress may have ended."""

_RETURN = 60.0
"""Seconds in which holders come back after a start of the registry: their channels connect again within 5 s."""


class PinBook:
    """Kept in memory, and in the database before anybody is told. Safe for many threads.

    Nobody could renew a pin while the registry was away, so none ends before its holder had time to come back.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, records: CacheRecords, now: float) -> None:
        self._records = records
        self._pins = {pin.id: _lasting(pin, now + _RETURN) for pin in records.pins()}
        self._closed: set[Key] = set()
        self._lock = threading.Lock()

    def all(self) -> list[Pin]:
        """Every pin, oldest first."""
        with self._lock:
            return list(self._pins.values())

    def of(self, repo: RepoId, commit: Commit, paths: Collection[str] | None = None) -> list[Pin]:
        """The pins on a snapshot, or those that cover any of these files of it."""
        return [it for it in self.all() if (it.repo, it.commit) == (repo, commit) and it.covers(paths)]

    def take(
        self,
        repo: RepoId,
        commit: Commit,
        *,
        holder: str,
        claim: str,
        paths: tuple[str, ...],
        now: float,
        ttl: float | None,
        refusal: str = "",
    ) -> Pin:
        """A new pin, or the one of the same holder, claim and snapshot renewed, with these files.

        Args:
            ttl: seconds; None holds without an end.
            refusal: why it is not released though that is asked for; empty says nothing, and takes no refusal back.
                While nobody asks it is not taken: the next who does is to be answered by the holder itself.

        Raises:
            Fault: SNAPSHOT_BUSY, it is being deleted and this holder has no pin on it; DISK_FULL, DISK_FAULT.
        """
        expire_time = None if ttl is None else now + ttl
        with self._lock:
            found = [it for it in self._pins.values() if _claims(it) == (holder, claim, repo, commit)]
            if found:
                said = (refusal or found[0].refusal) if found[0].release_requested else ""
                pin = replace(found[0], paths=paths, expire_time=expire_time, refusal=said)
            elif (repo, commit) in self._closed:
                text = f"{repo} at {commit} is being deleted: try again in a moment."
                raise Fault(Reason.SNAPSHOT_BUSY, text, retry_after=_RETRY)
            else:
                pin = Pin(
                    id=uuid.uuid4().hex,
                    holder=holder,
                    claim=claim,
                    repo=repo,
                    commit=commit,
                    paths=paths,
                    expire_time=expire_time,
                    create_time=now,
                )
            self._records.save_pin(pin)
            self._pins[pin.id] = pin
            return pin

    def end(self, pin_id: str) -> Pin:
        """End a pin.

        Raises:
            Fault: PIN_NOT_FOUND; DISK_FULL, DISK_FAULT.
        """
        with self._lock:
            if (pin := self._pins.get(pin_id)) is None:
                name = f"pins/{pin_id}"
                raise Fault(
                    Reason.PIN_NOT_FOUND, f"There is no {name}: it was ended, or its time ran out.", resource=name
                )
            self._forget(pin)
            return pin

    def expire(self, now: float) -> list[Pin]:
        """End those whose time is over."""
        with self._lock:
            over = [it for it in self._pins.values() if it.expire_time is not None and it.expire_time <= now]
            for pin in over:
                self._forget(pin)
            return over

    def drop(self, repo: RepoId, commit: Commit) -> list[Pin]:
        """End those on a snapshot that is gone: another program took it."""
        with self._lock:
            lost = [it for it in self._pins.values() if (it.repo, it.commit) == (repo, commit)]
            for pin in lost:
                self._forget(pin)
            return lost

    def close(self, key: Key) -> None:
        """Take no new pins on a snapshot that is to be deleted.

        Raises:
            Fault: SNAPSHOT_BUSY, somebody else is deleting it.
        """
        with self._lock:
            if key in self._closed:
                text = f"{key[0]} at {key[1]} is being deleted by another call."
                raise Fault(Reason.SNAPSHOT_BUSY, text, retry_after=_RETRY)
            self._closed.add(key)

    def open(self, key: Key) -> None:
        """Take pins on it again."""
        with self._lock:
            self._closed.discard(key)

    def request_release(self, pins: Collection[Pin], *, wanted: bool) -> list[Pin]:
        """Ask holders to let go, or no longer; returns the pins that this changes, as they are now."""
        with self._lock:
            known = [found for pin in pins if (found := self._pins.get(pin.id))]
            changed = [
                replace(pin, release_requested=wanted, refusal="") for pin in known if pin.release_requested != wanted
            ]
            self._pins.update({pin.id: pin for pin in changed})
            return changed

    def _forget(self, pin: Pin) -> None:
        self._records.forget_pin(pin)
        del self._pins[pin.id]


def pinned(repo: RepoId, commit: Commit, pins: Collection[Pin], *, by_force: bool = False) -> Fault:
    """Why a snapshot is not deleted: each holder is a violation.

    Args:
        by_force: asking them was of no use, or would be.
    """
    holders = sorted({pin.holder for pin in pins})
    if all(pin.kept for pin in pins):
        advice = "That is a keep, which ends by being unpinned only."
    elif by_force:
        said = "; ".join(sorted({pin.refusal for pin in pins if pin.refusal}))
        advice = f"Who was asked has not let go{f': {said}' if said else ''}."
    else:
        advice = "Unpin it, or use force to have holders asked."
    return Fault(
        Reason.SNAPSHOT_PINNED,
        f"{repo} at {commit} is pinned by {', '.join(holders)}. {advice}",
        facts={"holders": ",".join(holders)},
        preconditions=tuple(Precondition("PIN", pin.holder, _described(pin)) for pin in pins),
    )


def _described(pin: Pin) -> str:
    claim = f" for {pin.claim}" if pin.claim else ""
    return f"{pin.name}{claim} holds {'some of its files' if pin.paths else 'all of it'}"


def _claims(pin: Pin) -> tuple[str, str, RepoId, Commit]:
    return pin.holder, pin.claim, pin.repo, pin.commit


def _lasting(pin: Pin, until: float) -> Pin:
    """The pin, ending then at the earliest."""
    return pin if pin.expire_time is None else replace(pin, expire_time=max(pin.expire_time, until))
