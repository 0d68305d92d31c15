"""`python -m bench [NAMES]`: measures, prints a table; README.md says how to read it."""

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from bench import report
from bench.measures import ALL
from bench.options import Options, choose


def main() -> int:
    """Run the named measurements; 0 if all ran and reached their goals, 1 if one missed, 2 if one could not run."""
    width = max(map(len, ALL)) + 2
    listed = "\n".join(f"  {name:<{width}}{measure.about}" for name, measure in ALL.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures Sandpost as it runs on this machine, each figure beside a reference.",
        epilog=f"measurements (all, if none is named; of `logs` its parts, if some are named behind it):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured there too; - is stdout")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw latency against load (measurement `load`) there, .png or .svg"
    )
    parser.add_argument("--quick", action="store_true", help="small counts: to see that it works, not to measure")
    arguments = parser.parse_args()
    try:
        names = choose(arguments.names, ALL)
    except ValueError as error:
        parser.error(f"no measurement is called {error}; there are {', '.join(ALL)}")
    missing = [what for what, lacking in (("root", os.geteuid() != 0), ("wrk", not shutil.which("wrk"))) if lacking]
    if missing:
        print(f"needs {' and '.join(missing)}; wrk comes by `apt-get install wrk`", file=sys.stderr)
        return 2
    if arguments.plot and "load" not in names:
        names.append("load")
    # Who ends it by SIGTERM leaves nothing running, as by Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = Options(quick=arguments.quick)
    results = {}
    broken = False
    for name in names:
        print(f"{name}: {ALL[name].about}", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            results[name] = ALL[name].run(options)
        except Exception as error:
            broken = True
            print(f"    could not be measured: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        else:
            options.say(f"{time.monotonic() - began:.0f} s")
    figures = [figure for result in results.values() for figure in result.figures]
    curves = [curve for result in results.values() for curve in result.curves]
    if arguments.json != "-":
        report.show(figures)
    if arguments.json:
        document = report.to_json(results, quick=arguments.quick)
        if arguments.json == "-":
            sys.stdout.write(document.decode())
        else:
            Path(arguments.json).write_bytes(document)
    if arguments.plot and curves:
        report.plot(curves, arguments.plot)
    if broken:
        return 2
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
