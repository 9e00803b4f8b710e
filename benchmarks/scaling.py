"""Time how a step's cost grows: with the weights, the rows of a batch, the draws, the restarts."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator
from statistics import median

import numpy as np

from harness import Case, Options, Row, emit, options_of, parser, reason
from problems import Problem, made_regression
from summary import MS, pooled, select, significant, table

TITLE = "Growth of the time per step"
CAPTION = """\
Milliseconds per step of `pyrobbb.fit` as one size grows and the others are fixed. The exponent is
that of a power law in the size, fitted by least squares over all sizes, and between the last two: 0
is a size without cost, 1 a proportional cost. Weights: 13-h-h-1, batch 100. The others: 13-50-1."""
AXES = {
    "weights": "weights",
    "rows": "rows in a batch",
    "draws": "draws per step (`n_particles`)",
    "restarts": "restarts",
}
ENGINES = ("svi", "fused", "compiled")
HIDDEN = (32, 64, 128, 256, 512, 1024)
BATCH_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
COUNTS = (1, 2, 4, 8, 16, 32)
N_IN, N_BATCHES = 13, 4
MAX_ROUNDS = 3


def cases(options: Options) -> list[Case]:
    """List what is timed: one process takes all sizes of an axis."""
    return [Case({"axis": axis, "engine": engine}) for axis in AXES for engine in ENGINES]


def measure(axis: str, engine: str, options: Options) -> Iterator[Row]:
    """Time a step at each size along an axis."""
    import pyrobbb
    from peers.pyrobbb_fit import seconds_per_step

    if axis == "restarts" and "restarts" not in inspect.signature(pyrobbb.fit).parameters:
        raise NotImplementedError("`fit` takes no restarts")
    for size, problem, arguments in points(axis, quick=options.quick):
        try:
            seconds = seconds_per_step(
                problem,
                engine=engine,
                budget=0.02 if options.quick else 0.7,
                n_pairs=1 if options.quick else 2,
                least_steps=256 if engine == "compiled" else 4 if options.quick else 32,
                **arguments,
            )
        except Exception as error:  # the other sizes are measured all the same
            yield {
                "size": size,
                "failed": reason(f"{size:,} {axis}: {type(error).__name__}", error),
            }
        else:
            yield {"size": size, "seconds": seconds}


def points(axis: str, *, quick: bool) -> Iterator[tuple[int, Problem, dict[str, int]]]:
    """Return the size, the problem and the arguments of `fit`, along an axis."""
    n_points = 2 if quick else None
    match axis:
        case "weights":
            for h in itertools.islice(HIDDEN, n_points):
                widths = (N_IN, h, h, 1)
                size = sum((a + 1) * b for a, b in itertools.pairwise(widths))
                yield size, _problem(widths, 100), {}
        case "rows":
            for batch_size in itertools.islice(BATCH_SIZES, n_points):
                yield batch_size, _problem((N_IN, 50, 1), batch_size), {}
        case "draws":
            for count in itertools.islice(COUNTS, n_points):
                yield count, _problem((N_IN, 50, 1), 100), {"n_particles": count}
        case "restarts":
            for count in itertools.islice(COUNTS, n_points):
                yield count, _problem((N_IN, 50, 1), 100), {"restarts": count}


def _problem(widths: tuple[int, ...], batch_size: int) -> Problem:
    n = N_BATCHES * batch_size
    x, y = made_regression(n, N_IN)
    return Problem(widths, "regression", batch_size, n, x, y)


def section(rows: list[Row]) -> str:
    """Write a table of each axis."""
    parts = []
    for axis, label in AXES.items():
        times, reasons = {}, []
        for engine in ENGINES:
            group = select(rows, axis=axis, engine=engine)
            sizes = sorted({row["size"] for row in group if "seconds" in row})
            if sizes:
                times[engine] = {n: median(pooled(select(group, size=n))) for n in sizes}
            failed = dict.fromkeys(row["failed"] for row in group if "failed" in row)
            reasons += [f"- {engine}: {why}" for why in failed]
        parts.append(f"### {label[0].upper()}{label[1:]}")
        if times:
            parts.append(_axis_table(times))
        if reasons:
            parts.append("Missing:\n\n" + "\n".join(reasons))
    return "\n\n".join(parts)


def _axis_table(times: dict[str, dict[int, float]]) -> str:
    sizes = sorted(set().union(*times.values()))
    lines = [
        [f"{size:,}", *(_cell(by_size.get(size)) for by_size in times.values())] for size in sizes
    ]
    fitted = [exponent(by_size) for by_size in times.values()]
    last = [exponent(dict(sorted(by_size.items())[-2:])) for by_size in times.values()]
    for label, exponents in (("**exponent**", fitted), ("between the last two", last)):
        lines.append([label, *("-" if math.isnan(e) else f"{e:.2f}" for e in exponents)])
    return table(["", *(f"{engine}, ms" for engine in times)], lines)


def _cell(seconds: float | None) -> str:
    return "" if seconds is None else significant(seconds / MS)


def exponent(seconds: dict[int, float]) -> float:
    """Return the exponent of seconds as a power of the size; NaN for fewer than two sizes."""
    if len(seconds) < 2:
        return math.nan
    exponent, _ = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)
    return float(exponent)


def main() -> None:
    """Time one engine along one axis."""
    arguments = parser(__doc__)
    arguments.add_argument("--axis", choices=AXES, required=True)
    arguments.add_argument("--engine", choices=("auto", *ENGINES), default="auto")
    given = arguments.parse_args()
    emit(lambda: measure(given.axis, given.engine, options_of(given)))


if __name__ == "__main__":
    main()
