import itertools

from hypothesis import given
from hypothesis import strategies as st
from slipway_registry.transfer.ranges import MAX_AT_WORK_BYTES, MIN_PART_BYTES, MIN_STEAL_BYTES, Ranges, Span

MIB = 1 << 20


def fetch(ranges: Ranges, span: Span) -> tuple[int, int]:
    """All that is left of a span, as its connection would."""
    start = span.position
    ranges.claim(span, ranges.left(span))
    ranges.release(span)
    return start, span.position


def test_parts_are_dealt_in_order_and_shrink_towards_the_end() -> None:
    ranges = Ranges([(0, 1024 * MIB)], connections=4)
    parts = []
    while span := ranges.take():
        parts.append(fetch(ranges, span))
    assert [start for start, _ in parts] == [0, *[end for _, end in parts[:-1]]]
    assert parts[-1][1] == 1024 * MIB
    sizes = [end - start for start, end in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == MAX_AT_WORK_BYTES // 4
    assert all(size >= MIN_PART_BYTES for size in sizes[:-1])


def test_parts_are_larger_where_fewer_connections_share_them_than_might() -> None:
    ranges = Ranges([(0, 2048 * MIB)], connections=8)
    first = ranges.take()
    assert first
    assert fetch(ranges, first) == (0, MAX_AT_WORK_BYTES // 8)
    ranges.share_among(1)
    second = ranges.take()
    assert second
    assert fetch(ranges, second) == (MAX_AT_WORK_BYTES // 8, MAX_AT_WORK_BYTES // 8 + MAX_AT_WORK_BYTES)


def test_what_a_connection_left_is_dealt_next() -> None:
    ranges = Ranges([(0, 64 * MIB)], connections=2)
    span = ranges.take()
    assert span
    ranges.claim(span, 3 * MIB + 5)
    ranges.release(span)
    again = ranges.take()
    assert again
    assert again.position == 3 * MIB + 5


def test_an_idle_connection_takes_half_of_the_slowest() -> None:
    ranges = Ranges([(0, MIN_PART_BYTES * 4)], connections=1)
    slow = ranges.take()
    assert slow
    whole = slow.end
    while (gap := ranges.take()) and gap.position >= whole:
        fetch(ranges, gap)
    assert gap
    assert (slow.end, gap.end) == (gap.position, whole)


def test_too_little_is_not_taken_from_anyone() -> None:
    ranges = Ranges([(0, MIN_STEAL_BYTES - 1)], connections=1)
    span = ranges.take()
    assert span
    while other := ranges.take():
        fetch(ranges, other)
    assert span.end - span.position < MIN_STEAL_BYTES


def test_bytes_beyond_what_was_taken_away_are_refused() -> None:
    ranges = Ranges([(0, 16 * MIB)], connections=1)
    span = ranges.take()
    assert span
    while ranges.take():
        pass
    room = span.end - span.position
    assert ranges.claim(span, room + 1000) == room
    assert ranges.claim(span, 1) == 0


def test_a_collapse_ends_every_span() -> None:
    ranges = Ranges([(0, 64 * MIB)], connections=2)
    span = ranges.take()
    assert span
    ranges.collapse()
    assert ranges.claim(span, 10) == 0
    assert ranges.take() is None


@given(
    size=st.integers(1, 300 * MIB),
    connections=st.integers(1, 9),
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40 * MIB), st.booleans()), max_size=60),
)
def test_every_byte_is_claimed_exactly_once(size: int, connections: int, steps: list[tuple[int, int, bool]]) -> None:
    ranges = Ranges([(0, size)], connections=connections)
    live: list[Span] = []
    claimed: list[tuple[int, int]] = []

    def claim(span: Span, count: int) -> None:
        start = span.position
        if granted := ranges.claim(span, count):
            claimed.append((start, start + granted))

    for pick, count, drop in steps:
        if len(live) < connections and (span := ranges.take()):
            live.append(span)
        if live:
            span = live[pick % len(live)]
            claim(span, count)
            if drop or not ranges.left(span):
                ranges.release(span)
                live.remove(span)
    for span in live:
        ranges.release(span)
    while span := ranges.take():
        claim(span, ranges.left(span))
        ranges.release(span)

    claimed.sort()
    assert claimed[0][0] == 0
    assert claimed[-1][1] == size
    assert all(before[1] == after[0] for before, after in itertools.pairwise(claimed))
