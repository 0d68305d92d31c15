"""Records by which a process of the platform tells a tenant something in his own stream. Pure.

They have no `sandbox` field: that is of what his code wrote. No record has an `offset`: readers put it in.
"""

import msgspec

from sandpost.logs import bunyan
from sandpost.model.names import SYSTEM

_encode = msgspec.json.Encoder().encode


class Voice:
    """Writes the records of one process."""

    def __init__(self, hostname: str, pid: int) -> None:
        self._head: dict[str, str | float] = {"name": bunyan.NAME, "hostname": hostname, "pid": pid}

    def line(self, stream: str, text: str, at: float, *, level: int = bunyan.INFO, **fields: str | float) -> bytes:
        """Return the record that says `text` in `stream`, its line end included.

        `at`: seconds since the epoch. Fields that are empty are left out.
        """
        record: dict[str, str | float] = {
            **self._head,
            "level": level,
            "time": bunyan.timestamp(at),
            "msg": text,
            "v": bunyan.VERSION,
        }
        if stream != SYSTEM:
            record["container"] = stream
        record |= {name: value for name, value in fields.items() if value != ""}
        return _encode(record) + b"\n"
