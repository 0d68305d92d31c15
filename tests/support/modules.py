"""Modules as the platform lays them down: `npm/<name>/<version>/node_modules/..`, `pypi/<name>/<version>/..`."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path


def npm(ready: Path, name: str, version: str, files: Mapping[str, str], **package: object) -> Path:
    """Lay down a version of a package of npm, whole and by one rename; return its folder.

    `files` are texts by path below `node_modules/<name>`, `../other/x.js` is a dependency's. `package` is more of its
    package.json.
    """
    described = {"package.json": json.dumps({"name": name, "version": version, **package}), **files}
    return _put(
        ready / "npm" / name / version, {f"node_modules/{name}/{path}": text for path, text in described.items()}
    )


def pypi(ready: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """Lay down a version of a package of PyPI."""
    target = _put(ready / "pypi" / name / version, files)
    # What is being put together stands beside.
    (target.parent / ".new-0123").mkdir(exist_ok=True)
    return target


_ADDON = """
typedef void *value; typedef void *env;
extern int napi_create_string_utf8(env, const char *, unsigned long, value *);
value napi_register_module_v1(env e, value exports) {
  value said; napi_create_string_utf8(e, SAID, sizeof SAID - 1, &said); return said;
}
"""


def addon(target: Path, said: str) -> None:
    """Build a module in machine code that exports a text."""
    target.parent.mkdir(parents=True)
    command = ["gcc", "-shared", "-fPIC", f'-DSAID="{said}"', "-x", "c", "-", "-o", str(target)]
    subprocess.run(command, input=_ADDON, text=True, check=True, timeout=60)


def _put(target: Path, files: Mapping[str, str]) -> Path:
    # Beside the store, so that it is one rename.
    store = target
    while store.parent.name not in {"npm", "pypi"}:
        store = store.parent
    making = Path(tempfile.mkdtemp(prefix="making-", dir=store.parent.parent.parent))
    made = making / "made"
    made.mkdir()
    for path, text in files.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).resolve().parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_text(text)
    # A start of the api sweeps folders that have no version.
    target.parent.mkdir(parents=True, exist_ok=True)
    made.rename(target)
    shutil.rmtree(making)
    return target
