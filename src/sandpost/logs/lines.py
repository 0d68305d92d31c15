"""Raw output cut into lines: what a program wrote to its descriptors 1 and 2. Pure."""

from typing import Final

from sandpost.logs.said import Said

MAX_LINE: Final = 16 * 1024
"""Bytes of a record; a longer line becomes several."""


class LineCutter:
    """Decoder of a raw stream: a record a line, without its end, at one level and with no `req_id`.

    A line longer than `MAX_LINE` is cut, if possible between two characters. After `skip` the rest of the line in
    which it stopped is left out too.
    """

    def __init__(self, level: int) -> None:
        self.forged = 0  # every byte is part of a line
        self._level = level
        self._rest = b""
        self._discarding = False

    @property
    def pending(self) -> bool:
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Said]:
        if self._discarding:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return []
            self._discarding = False
        lines = (self._rest + data).split(b"\n")
        rest = lines.pop()
        said: list[Said] = []
        for line in lines:
            self._cut(line, said)
        self._rest = self._cut_beginning(rest, said)
        return said

    def skip(self, data: bytes) -> int:
        if not data:
            return 0
        begun = data.count(b"\n") + (not self._discarding) - data.endswith(b"\n")
        self._discarding = not data.endswith(b"\n")
        self._rest = b""
        return begun

    def flush(self) -> list[Said]:
        rest, self._rest = self._rest, b""
        return [self._say(rest)] if rest else []

    def _cut(self, line: bytes, said: list[Said]) -> None:
        said.append(self._say(self._cut_beginning(line, said)))

    def _cut_beginning(self, line: bytes, said: list[Said]) -> bytes:
        while len(line) > MAX_LINE:
            end = MAX_LINE
            while end > MAX_LINE - 3 and line[end] & 0xC0 == 0x80:
                end -= 1
            if line[end] & 0xC0 == 0x80:
                end = MAX_LINE
            said.append(Said(self._level, None, line[:end]))
            line = line[end:]
        return line

    def _say(self, line: bytes) -> Said:
        return Said(self._level, None, line.removesuffix(b"\r"))
