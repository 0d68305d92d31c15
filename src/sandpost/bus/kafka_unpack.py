"""Takes apart what brokers send: whole appends ("record batches", https://kafka.apache.org/documentation/#recordbatch),
of which the last one may be cut off. Pure.

To unpack LZ4 is most of what finding history costs. aiokafka has it unpacked into memory that grows step by step, which
takes more than ten times as long as into memory that is there; so that is done here, and all else by aiokafka.
"""

import struct
from collections.abc import Iterator
from typing import Any

import cramjam
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

ROOM = 1 << 20
"""Bytes for an append that is unpacked; those of ours are smaller."""
_MOST = 256
"""How much smaller than what is packed LZ4 makes nothing."""
_HEAD = 61
"""Bytes before the records, which alone are packed."""
_BEFORE = 12
"""Bytes that the length does not count: the place, and the length itself."""
_LENGTH, _VERSION, _ATTRIBUTES = 8, 16, 21
"""Where these are in the head."""


class Append:
    """One append. `next_`: the place behind it; `control`: whether it is Kafka's own."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._batch = MemoryRecords(packed).next_batch()
        self.next_ = int(self._batch.next_offset)
        self.control = bool(self._batch.is_control_batch)

    def __iter__(self) -> Iterator[Any]:
        """Yield its records. Raises `KafkaError` or `ValueError` if they are damaged."""
        if not self._batch.validate_crc():
            raise KafkaError("checksum")
        plain = _unpacked(self._packed)
        try:
            yield from self._batch if plain is None else MemoryRecords(plain).next_batch()
        except cramjam.DecompressionError as error:
            raise KafkaError(str(error)) from error


def appends(data: bytes) -> Iterator[Append]:
    """Yield the appends that are whole. Raises `KafkaError` for what is none."""
    at = 0
    # Those of older formats are shorter than a head of ours.
    while at + _BEFORE <= len(data):
        (length,) = struct.unpack_from(">i", data, at + _LENGTH)
        end = at + _BEFORE + max(length, 0)
        if end > len(data):
            return
        yield Append(data[at:end])
        at = end


def _unpacked(packed: bytes) -> bytes | None:
    """Return an append as it would be if it were not packed; None if that is for aiokafka to do, or to complain of."""
    (attributes,) = struct.unpack_from(">h", packed, _ATTRIBUTES)
    if packed[_VERSION] != 2 or attributes & DefaultRecordBatch.CODEC_MASK != DefaultRecordBatch.CODEC_LZ4:
        return None
    room = bytearray(min(ROOM, _MOST * len(packed)))
    try:
        size = cramjam.lz4.decompress_into(memoryview(packed)[_HEAD:], room)
    except cramjam.DecompressionError:
        return None
    head = bytearray(packed[:_HEAD])
    struct.pack_into(">i", head, _LENGTH, _HEAD - _BEFORE + size)
    struct.pack_into(">h", head, _ATTRIBUTES, attributes & ~DefaultRecordBatch.CODEC_MASK)
    return b"".join((head, memoryview(room)[:size]))
