"""The format of segments, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.bus import segment
from sandpost.bus.segment import Entry, Frame, Hole

SEED = segment.seed_of("acme")


def frame(offset: int, lines: list[bytes], source: str = "s.1", seed: int = SEED) -> bytes:
    blob = b"".join(line + b"\n" for line in lines)
    return b"".join(
        segment.frame(
            blob, offset=offset, count=len(lines), time=5, source=source, end=offset + 9, boot=77, seed=seed
        )
    )  # fmt: skip


@given(
    offset=st.integers(0, (1 << 53) - 1),
    time=st.integers(0, (1 << 63) - 1),
    end=st.integers(0, (1 << 63) - 1),
    boot=st.integers(0, (1 << 32) - 1),
    source=st.from_regex(r"[a-z0-9.-]{0,40}", fullmatch=True),
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=5),
    before=st.binary(max_size=10),
)
def test_a_frame_is_read_as_it_was_written(
    offset: int, time: int, end: int, boot: int, source: str, lines: list[bytes], before: bytes
) -> None:
    blob = b"\n".join(lines) + b"\n"
    whole = b"".join(
        segment.frame(
            blob, offset=offset, count=len(lines), time=time, source=source, end=end, boot=boot, seed=SEED
        )
    )  # fmt: skip
    data = before + whole + b"x"
    head = segment.head_at(data, len(before), SEED)
    assert head is not None
    assert (head.offset, head.records, head.time, head.end, head.boot, head.source) == (
        offset, len(lines), time, end, boot, source,
    )  # fmt: skip
    assert head.size == len(whole)
    assert head.next_offset == offset + len(lines)
    assert segment.lines_at(data, len(before), head) == blob


def test_every_flipped_bit_of_a_frame_is_seen() -> None:
    whole = frame(41, [b'{"a":1}', b'{"b":2}'])
    for at in range(len(whole) * 8):
        wrong = bytearray(whole)
        wrong[at // 8] ^= 1 << at % 8
        data = bytes(wrong)
        head = segment.head_at(data, 0, SEED)
        assert head is None or segment.lines_at(data, 0, head) is None, f"bit {at}"


def test_a_frame_of_another_stream_is_none() -> None:
    whole = frame(0, [b"{}"])
    assert segment.head_at(whole, 0, SEED) is not None
    assert segment.head_at(whole, 0, segment.seed_of("other")) is None


def test_behind_damage_the_next_frame_is_found_and_what_was_lost_is_known() -> None:
    first, second, third = frame(0, [b"{}"] * 3), frame(3, [b"{}"] * 4), frame(7, [b"{}"])
    broken_lines = second[:-2] + b"X\n"
    assert [type(one) for one in segment.parse(first + second + third, 0, SEED)] == [Frame] * 3
    found = list(segment.parse(first + broken_lines + third, 0, SEED))
    assert [(one.head.offset, one.lines is None) for one in found if isinstance(one, Frame)] == [
        (0, False), (3, True), (7, False),
    ]  # fmt: skip
    found = list(segment.parse(first + bytes(len(second)) + third, 0, SEED))
    assert found[1] == Hole(len(first) + len(second), 3, 7)
    assert isinstance(found[2], Frame)
    # At the end nothing is told: it may be a frame that is being written.
    assert len(list(segment.parse(first + bytes(len(second)), 0, SEED))) == 1
    assert len(list(segment.parse(first + second[:-1], 0, SEED))) == 1


@pytest.mark.parametrize("offset", [2, 4, 3 + 100], ids=["repeated", "left out", "of far away"])
def test_a_frame_where_its_offset_does_not_belong_is_damage(offset: int) -> None:
    first, wrong = frame(0, [b"{}"] * 3), frame(offset, [b"{}"])
    assert len(list(segment.parse(first + wrong, 0, SEED))) == 1
    # So it is skipped for the right one.
    right = frame(3, [b"{}"])
    found = list(segment.parse(first + wrong + right, 0, SEED))
    assert found[1] == Hole(len(first) + len(wrong), 3, 3)
    assert isinstance(found[2], Frame)


def test_a_torn_frame_is_told_from_damage() -> None:
    whole = frame(41, [b'{"a":1}'], source="s.1234")
    for size in range(1, len(whole)):
        assert segment.is_torn(whole[:size], SEED), size
    assert not segment.is_torn(b"X" + whole[1:30], SEED)
    assert not segment.is_torn(bytes(60), SEED)
    wrong = whole[:20] + b"\x00" + whole[21:]
    assert not segment.is_torn(wrong, SEED)


def test_an_index_is_read_as_it_was_written_or_not_at_all() -> None:
    some = [Entry(5, 1000, 70_000), Entry(9, 1001, 140_000)]
    data = b"".join(segment.entry(one, SEED) for one in some)
    assert segment.entries(data, SEED) == some
    assert segment.entries(b"", SEED) == []
    assert segment.entries(data, segment.seed_of("other")) is None
    for at in range(len(data)):
        assert segment.entries(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], SEED) is None
        assert at % segment.ENTRY == 0 or segment.entries(data[:at], SEED) is None
