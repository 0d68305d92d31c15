"""Leaves a process's figures where the metrics listener finds them, and others that want to know how it is."""

import os

import msgspec

from sandpost.kernel import files
from sandpost.model.figures import Figures
from sandpost.model.messages import Part

MAX_FILE = 1 << 20
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Figures).decode


def write(folder: str, figures: Figures) -> None:
    """Replace `<folder>/<part>-<index>.json` atomically; `OSError` if the folder is missing or not ours."""
    path = os.path.join(folder, f"{figures.part}-{figures.index}.json")
    files.replace(path, _encode(figures), 0o644)


def read(folder: str, part: Part, index: int = 0) -> Figures | None:
    """Return what a process left last; None if there is nothing, or nothing that can be read."""
    try:
        with open(os.path.join(folder, f"{part}-{index}.json"), "rb") as file:
            return _decode(file.read(MAX_FILE))
    except (OSError, ValueError):
        return None
