"""`require` of an installed module beside Node's own, of the same folder, in the same process."""

import json
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench.client import Connection, post
from bench.options import Options
from bench.result import Figure, Result, median
from bench.running import Platform

FILES = 40
"""Modules of the measured package: some 100 KB together, as of a middling one with what it depends on."""

_TIMED = """// %d
const { createRequire } = require('node:module');
const time = (work) => {
  const at = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - at) / 1e6;
};
return (cb) => {
  const ours = () => time(() => require('measured@1.0.%d'));
  const plain = () => time(() => createRequire('/modules/npm/measured/1.0.%d/x.js')('measured'));
  cb(null, %s);
};
"""
_AGAIN = """// again %d
const at = process.hrtime.bigint();
require('measured@1.0.%d');
const took = Number(process.hrtime.bigint() - at) / 1e6;
return (cb) => cb(null, took);
"""


_BODY = "{ const c = [a, b].map((x) => x + N); return c.reduce((x, y) => x * y, N); }"


def _lay_down(ready: Path, version: str) -> None:
    """Put a version of a package in place, whole."""
    target = ready / "npm" / "measured" / version
    made = ready.parent / f"made-{version}"
    package = made / "node_modules" / "measured"
    (package / "lib").mkdir(parents=True)
    described = {"name": "measured", "version": version, "main": "lib/m0.js"}
    (package / "package.json").write_text(json.dumps(described))
    for number, text in _texts():
        (package / "lib" / f"m{number}.js").write_text(text)
    target.parent.mkdir(parents=True, exist_ok=True)
    made.rename(target)


def _texts() -> Iterator[tuple[int, str]]:
    for number in range(FILES):
        # A tree: each requires the two below it.
        below = [child for child in (2 * number + 1, 2 * number + 2) if child < FILES]
        lines = ["'use strict';"]
        lines += [f"exports.m{child} = require('./m{child}');" for child in below]
        lines += [f"exports.f{n} = (a, b) => {_BODY.replace('N', str(n))};" for n in range(24)]
        yield number, "\n".join(lines)


def modules(options: Options) -> Result:
    """Versions that nobody has required yet, by `require` and by Node, each first in turns; then by other programs."""
    count, warm_up = options.pick(100, 10), 5
    ours: list[float] = []
    plain: list[float] = []
    later: list[float] = []

    async def measure(platform: Platform) -> None:
        async with Connection(platform.port) as connection:

            async def ask(program: str) -> list[float] | float:
                answer = await connection.ask(post("/modules", platform.key, program.encode()))
                if answer.status != 200:
                    raise RuntimeError(f"a call failed: {answer}")
                found: list[float] | float = json.loads(answer.body)
                return found

            for number in range(count + warm_up):
                order = "[ours(), plain()]" if number % 2 else "[plain(), ours()].reverse()"
                pair = await ask(_TIMED % (number, number, number, order))
                again = await ask(_AGAIN % (number, number))
                assert isinstance(pair, list)
                assert isinstance(again, float)
                if number >= warm_up:
                    ours.append(pair[0])
                    plain.append(pair[1])
                    later.append(again)

    # Node keeps what it loads for good.
    with Platform(limits_memory="1GiB") as platform:
        # By then the api has swept the store, of folders without a version too.
        platform.wait_pool()
        ready = Path(platform.host.modules_ready)
        for number in range(count + warm_up):
            _lay_down(ready, f"1.0.{number}")
        uvloop.run(measure(platform))
    return Result(
        figures=[
            Figure(
                name="`require` of an installed module, of a plain folder's",
                value=median(ours) / median(plain),
                unit="of plain",
                goal=1.1,
                note=f"{count} versions of a package of {FILES} files, each way first in turns; "
                f"{median(ours):.2f} and {median(plain):.2f} ms p50",
            ),
            Figure(
                name="`require` of a module that another program has, p50",
                value=median(later),
                unit="ms",
                reference=median(ours),
                beside="the first program's",
                note="an instance of its own",
            ),
        ]
    )
