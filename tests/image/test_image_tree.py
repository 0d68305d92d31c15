"""Trees: the same whoever made them, linked without copies, never left through a mount."""

import os
import stat
import subprocess
from pathlib import Path

from sandpost.image import recipe, tree


def test_normalised_trees_are_equal_and_harmless(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    for root, mode in zip(roots, (0o600, 0o640), strict=True):
        (root / "folder").mkdir(parents=True, mode=0o700)
        (root / "folder" / "file").write_text("text")
        (root / "folder" / "file").chmod(mode)
        (root / "tool").write_text("#!/bin/sh\n")
        (root / "tool").chmod(0o4755)
        (root / "link").symlink_to("tool")
        os.mkfifo(root / "fifo")
        os.chown(root / "folder" / "file", 12345, 12345)
        tree.normalise(str(root))
    first, second = (tree.read(str(root)) for root in roots)
    assert sorted(first, key=str) == sorted(second, key=str)
    assert {e.path for e in first} == {"folder", "folder/file", "tool", "link"}
    for path in (roots[0], *roots[0].rglob("*")):
        info = path.lstat()
        assert info.st_uid == info.st_gid == 0
        assert stat.S_ISLNK(info.st_mode) or info.st_mode & 0o7777 in (0o644, 0o755)
        assert info.st_mtime == recipe.EPOCH


def test_a_file_capability_is_removed(tmp_path: Path) -> None:
    tool = tmp_path / "root" / "tool"
    tool.parent.mkdir()
    tool.write_text("")
    # struct vfs_cap_data of revision 2: effective, CAP_NET_RAW permitted.
    os.setxattr(tool, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    tree.normalise(str(tool.parent))
    assert os.listxattr(tool) == []


def test_linked_trees_share_files_and_not_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "file").write_text("x")
    (tmp_path / "a" / "link").symlink_to("nowhere")
    tree.link(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a" / "sub" / "file").samefile(tmp_path / "b" / "sub" / "file")
    assert not (tmp_path / "a" / "sub").samefile(tmp_path / "b" / "sub")
    assert os.readlink(tmp_path / "b" / "link") == "nowhere"


def test_mounts_below_a_leftover_are_detached_before_it_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    point = tmp_path / "leftover" / "dev"
    point.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(kept), str(point)], check=True)
    try:
        tree.unmount_below(str(tmp_path / "leftover"))
        tree.remove(str(tmp_path / "leftover"))
    finally:
        subprocess.run(["umount", "--quiet", str(point)], check=False, stderr=subprocess.DEVNULL)
    assert (kept / "file").read_text() == "x"
    assert not (tmp_path / "leftover").exists()
