"""Shows what was measured: a table, JSON, a plot."""

import os
import platform
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.result import Curve, Figure, Result


def number(value: float) -> str:
    """Return a figure with three significant digits, thousands separated."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def with_unit(value: float, unit: str) -> str:
    """Return a figure with its unit."""
    return f"{number(value)} {unit}".strip() if not unit.startswith("/") else f"{number(value)}{unit}"


def table(figures: list[Figure]) -> Table:
    """Return the table of figures, each beside its goal and its reference."""
    made = Table(title="Sandpost, measured", title_justify="left", show_lines=False)
    for name, side in (("figure", "left"), ("measured", "right"), ("goal", "right"), ("", "left")):
        made.add_column(name, justify="right" if side == "right" else "left")
    made.add_column("reference", justify="right")
    made.add_column("ratio", justify="right")
    made.add_column("beside what; notes")
    for figure in figures:
        sign = "<=" if figure.better == "less" else ">="
        verdict = {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}[figure.met]
        ratio = figure.ratio
        made.add_row(
            figure.name,
            with_unit(figure.value, figure.unit),
            "" if figure.goal is None else f"{sign} {number(figure.goal)}",
            verdict,
            "" if figure.reference is None else number(figure.reference),
            "" if ratio is None else f"{ratio:.2f}",
            "; ".join(part for part in (figure.beside, figure.note) if part),
        )
    return made


def show(figures: list[Figure]) -> None:
    """Print the table, as wide as it needs where nobody looks at a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    console.print(table(figures))


def to_json(results: dict[str, Result], *, quick: bool) -> bytes:
    """Return everything with what is needed to compare it: when, where, how."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": {"cores": os.cpu_count(), "memory": machine.total(), "kernel": platform.release()},
        "results": {
            name: {
                "figures": [
                    {**msgspec.to_builtins(figure), "ratio": figure.ratio, "met": figure.met}
                    for figure in result.figures
                ],
                "curves": msgspec.to_builtins(result.curves),
            }
            for name, result in results.items()
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def plot(curves: list[Curve], path: str) -> None:
    """Draw latency against load into the file `path`; its ending names the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for colour, curve in zip(("tab:blue", "tab:gray", "tab:orange", "tab:green"), curves, strict=False):
        rates = [point.rate for point in curve.points]
        axes.plot(rates, [point.p50 for point in curve.points], "o-", color=colour, label=f"{curve.name}, p50")
        axes.plot(rates, [point.p99 for point in curve.points], "s--", color=colour, label=f"{curve.name}, p99")
        for point in curve.points:
            axes.annotate(
                str(point.connections), (point.rate, point.p50), textcoords="offset points", xytext=(4, -10), fontsize=7
            )
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("calls answered a second (the small numbers are connections)")
    axes.set_ylabel("time of a call, ms")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)
    plt.close(figure)
