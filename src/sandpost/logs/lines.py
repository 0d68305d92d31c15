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

    def __init__(self, level: int, end: int = 0, *, torn: bool = False) -> None:
        self.forged = 0  # every byte is part of a line
        self.end = end
        self.torn = torn
        self._level = level
        self._rest = b""

    @property
    def pending(self) -> bool:
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Said]:
        if self.torn:
            left_out, newline, data = data.partition(b"\n")
            self.end += len(left_out) + len(newline)
            if not newline:
                return []
            self.torn = False
        lines = (self._rest + data).split(b"\n")
        rest = lines.pop()
        said: list[Said] = []
        for line in lines:
            last = self._cut_beginning(line, said)
            self.end += len(last) + 1
            said.append(Said(self._level, None, last.removesuffix(b"\r"), self.end))
        self._rest = self._cut_beginning(rest, said)
        return said

    def skip(self, data: bytes) -> int:
        if not data:
            return 0
        begun = data.count(b"\n") + (not self.torn) - data.endswith(b"\n")
        self.torn = not data.endswith(b"\n")
        self.end += len(self._rest) + len(data)
        self._rest = b""
        return begun

    def flush(self) -> list[Said]:
        rest, self._rest = self._rest, b""
        self.end += len(rest)
        return [Said(self._level, None, rest.removesuffix(b"\r"), self.end)] if rest else []

    def _cut_beginning(self, line: bytes, said: list[Said]) -> bytes:
        while len(line) > MAX_LINE:
            size = MAX_LINE
            while size > MAX_LINE - 3 and line[size] & 0xC0 == 0x80:
                size -= 1
            if line[size] & 0xC0 == 0x80:
                size = MAX_LINE
            self.end += size
            said.append(Said(self._level, None, line[:size], self.end))
            line = line[size:]
        return line
