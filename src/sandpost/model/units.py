"""Sizes, durations and counts as people write them, and back."""

import re

from sandpost.model.errors import ConfigError

_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Return the bytes that `128MiB`, `1 GiB` or `4096` mean; anything else is a `ConfigError`."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in _SIZES:
        raise ConfigError(f"`{text}` is not a size: write a number with B, KiB, MiB, GiB or TiB, such as 128MiB")
    return int(float(match[1]) * _SIZES[match[2]])


def format_size(size: int) -> str:
    """Return `size` bytes in the largest unit that divides it, such as `128MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def show_size(size: float) -> str:
    """Return bytes for people, such as `128 MiB`; one decimal where the unit does not divide it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _SIZES[unit]:
            return f"{size / _SIZES[unit]:.{1 if size % _SIZES[unit] else 0}f} {unit}"
    return f"{size:.0f} B"


def parse_duration(text: str) -> float:
    """Return the seconds that `500ms`, `5s`, `2m`, `1h` or `7d` mean; a bare number is a `ConfigError`."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in _DURATIONS:
        raise ConfigError(f"`{text}` is not a duration: write a number with ms, s, m, h or d, such as 30s")
    return float(match[1]) * _DURATIONS[match[2]]


def format_duration(seconds: float) -> str:
    """Return `seconds` in the largest unit that divides it, such as `30s` or `500ms`."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _DURATIONS[unit] == 0:
            return f"{int(seconds // _DURATIONS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms"
