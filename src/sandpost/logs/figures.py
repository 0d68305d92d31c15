"""Leaves a process's figures where the metrics listener finds them."""

import os

import msgspec

from sandpost.kernel import files
from sandpost.model.figures import Figures

_encode = msgspec.json.Encoder().encode


def write(folder: str, figures: Figures) -> None:
    """Replace `<folder>/<part>-<index>.json` atomically; `OSError` if the folder is missing or not ours."""
    path = os.path.join(folder, f"{figures.part}-{figures.index}.json")
    files.replace(path, _encode(figures), 0o644)
