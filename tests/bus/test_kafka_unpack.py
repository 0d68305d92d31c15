"""What brokers send is taken apart as aiokafka does it, whatever it is packed with."""

import random
import struct
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from sandpost.bus.kafka_unpack import ROOM, appends
from sandpost.bus.kafka_wire import EVERYBODY, Contents, Rubbish

LZ4 = DefaultRecordBatch.CODEC_LZ4
CODECS = [DefaultRecordBatch.CODEC_NONE, DefaultRecordBatch.CODEC_GZIP, LZ4, DefaultRecordBatch.CODEC_ZSTD]


def append(codec: int, first: int, values: list[bytes | None], key: bytes = b"acme") -> bytes:
    """Return an append as a broker has it from offset `first` on."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, 7, 0, 3, 16 * ROOM)
    for number, value in enumerate(values):
        builder.append(number, 1_000 + number, key, value, [("h", b"%d" % number)])
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, first)
    return bytes(made)


def fields(record: Any) -> tuple[object, ...]:
    return record.offset, record.timestamp, record.key, record.value, record.headers


def as_it_is(data: bytes) -> list[tuple[object, ...]]:
    """Return what aiokafka finds."""
    found = []
    batches = MemoryRecords(data)
    while batches.has_next():
        found += [fields(record) for record in batches.next_batch()]
    return found


def some(count: int, size: int) -> list[bytes | None]:
    chance = random.Random(count)
    return [bytes(chance.choices(b"abc{}\n", k=size)) for _ in range(count)]


@pytest.mark.parametrize("codec", CODECS)
def test_records_of_an_append_are_what_they_are_for_aiokafka(codec: int) -> None:
    data = append(codec, 40, some(30, 500)) + append(codec, 70, [None, b""]) + append(codec, 99, some(2, ROOM))
    found = list(appends(data))
    assert [one.next_ for one in found] == [70, 72, 101]
    assert [fields(record) for one in found for record in one] == as_it_is(data)


@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_older_formats_are_passed_however_short(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1000)
    builder.append(0, timestamp=None, key=None, value=b"x")
    old = bytearray(builder.build())
    struct.pack_into(">q", old, 0, 5)
    contents = Contents(bytes(old), 5)
    # It has no key: somebody else's.
    assert list(contents) == []
    assert (contents.next_, contents.skipped) == (6, 1)


def test_what_is_cut_off_is_left_for_the_next_time() -> None:
    first, second = append(LZ4, 0, some(3, 50)), append(LZ4, 3, some(3, 50))
    for size in range(len(first + second)):
        assert [one.next_ for one in appends((first + second)[:size])] == ([3] if size >= len(first) else [])


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_damaged_is_not_told_as_something_else(codec: int) -> None:
    data = append(codec, 0, some(3, 50))
    # What lies before is not in the sum: where it stands, how long it is, its version and the sum itself.
    for at in range(21, len(data)):
        bad = bytearray(data)
        bad[at] ^= 0x10
        (one,) = appends(bytes(bad))
        with pytest.raises(KafkaError):
            list(one)


def test_what_cannot_be_unpacked_though_its_sum_is_right_is_told() -> None:
    data = bytearray(append(LZ4, 0, some(3, 50)))
    data[61:65] = b"none"
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    assert list(Contents(bytes(data), 0)) == [(EVERYBODY, Rubbish(0, 3, "what was written there is damaged"))]


def test_what_lies_behind_where_reading_stops_is_not_looked_at() -> None:
    damaged = bytearray(append(LZ4, 4, some(4, 50)))
    damaged[-1] ^= 1
    data = append(LZ4, 0, some(4, 50)) + bytes(damaged)
    for stop, seen in ((1, 1), (3, 3), (4, 4), (5, 5)):
        contents = Contents(data, 0, stop=stop)
        assert len(list(contents)) == seen
        assert contents.next_ == (stop if stop <= 4 else 8)
    assert list(Contents(data, 2, stop=2)) == []
