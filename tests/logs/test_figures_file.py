import os
from pathlib import Path

import msgspec
import pytest

from sandpost.logs import figures
from sandpost.model.figures import Figures, Sample


def sample(value: float) -> Figures:
    one = Sample(name="sandpost_x_total", kind="counter", help="x", value=value)
    return Figures(part="collector", index=0, pid=os.getpid(), at=1.0, samples=[one])


def test_written_figures_are_read_back_and_replaced(tmp_path: Path) -> None:
    figures.write(str(tmp_path), sample(1))
    first = os.open(tmp_path / "collector-0.json", os.O_RDONLY)
    figures.write(str(tmp_path), sample(2))
    # Whoever had opened the old file still reads the old file, whole: it was replaced, not rewritten.
    assert msgspec.json.decode(os.read(first, 65536), type=Figures) == sample(1)
    os.close(first)
    assert msgspec.json.decode((tmp_path / "collector-0.json").read_bytes(), type=Figures) == sample(2)
    assert os.listdir(tmp_path) == ["collector-0.json"]


def test_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        figures.write(str(tmp_path / "absent"), sample(1))
