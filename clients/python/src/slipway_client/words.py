"""Enum values of the contract as the words that people say: `RUNNING`, `generate`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

Value = TypeVar("Value", bound=int)


def word(wrapper: Any, value: int) -> str:
    """The name of an enum value without its type's prefix (`DOWNLOAD_STATE_RUNNING` → `RUNNING`).

    A value of a newer service is its number.
    """
    known = wrapper.DESCRIPTOR.values_by_number.get(value)
    return known.name.removeprefix(_prefix(wrapper)) if known else str(value)


def value(wrapper: "_EnumTypeWrapper[Value]", text: str) -> Value:
    """The enum value for a word in any case; 0 (unspecified) for an empty one.

    Raises:
        ValueError: there is no such word; the text lists those there are.
    """
    if text and text.lower() not in words(wrapper):
        raise ValueError(f"{text!r} is none of {', '.join(words(wrapper))}")
    return wrapper.Value(_prefix(wrapper) + (text or "unspecified").upper().replace("-", "_"))


def words(wrapper: Any) -> Iterator[str]:
    """Every word of an enum, as people write it, without `unspecified`."""
    for known in wrapper.DESCRIPTOR.values:
        if known.number != 0:
            yield known.name.removeprefix(_prefix(wrapper)).lower().replace("_", "-")


def _prefix(wrapper: Any) -> str:
    """`DOWNLOAD_STATE_` for DownloadState, as buf's lint demands of every value."""
    zero = wrapper.DESCRIPTOR.values_by_number[0].name
    return str(zero.removesuffix("UNSPECIFIED"))
