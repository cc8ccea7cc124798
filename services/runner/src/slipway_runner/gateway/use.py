"""How models are used, as the gateways of a place count it: the one that serves, and those that it has replaced."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slipway_runner.gateway.ask import REPLY_SECONDS, UNANSWERED, ask
from slipway_runner.gateway.launch import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What the gateway knows of a model's use: requests in flight, and when (Unix seconds) one last began or ended."""

    in_flight: int
    last_use: float


async def use_at(place: Place) -> Mapping[str, Use]:
    """How each model that was ever used is used, by uid.

    Raises:
        OSError, aiohttp.ClientError, TimeoutError: the gateway that serves does not answer; see `ask.UNANSWERED`.
    """
    used = _used(await ask(place.socket, "GET", "/use"))
    for socket in place.retired():
        try:
            used = _together(used, _used(await ask(socket, "GET", "/use")))
        except UNANSWERED:
            socket.unlink(missing_ok=True)
    return used


async def drained_at(socket: Path, uid: str, seconds: float) -> None:
    """Wait until one of the gateways has answered what it has of a model; one that is not there has nothing."""
    with suppress(*UNANSWERED):
        asked = {"uid": uid, "seconds": seconds}
        await ask(socket, "POST", "/drain", asked, patience=seconds + REPLY_SECONDS)


def _used(said: Mapping[str, Mapping[str, float]]) -> Mapping[str, Use]:
    return {uid: Use(in_flight=int(one["in_flight"]), last_use=one["last_use"]) for uid, one in said.items()}


def _together(one: Mapping[str, Use], other: Mapping[str, Use]) -> Mapping[str, Use]:
    none = Use(in_flight=0, last_use=0.0)
    return {
        uid: Use(
            in_flight=one.get(uid, none).in_flight + other.get(uid, none).in_flight,
            last_use=max(one.get(uid, none).last_use, other.get(uid, none).last_use),
        )
        for uid in {*one, *other}
    }
