"""Time fits of several lengths by each engine: whether `engine="auto"` takes the better one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from harness import Case, Options, Row, emit, options_of, parser
from problems import SIZES, timed_problem
from summary import S, failure, pooled, select, significant, table

TITLE = "The choice of `auto`"
CAPTION = """\
Seconds of `pyrobbb.fit` in a process that has compiled nothing yet, including compilation, with
PyTorch's cache on disk as left by earlier fits. The last column is how much longer `auto` took than
the faster of the two engines. Medians over rounds; one fit per process, in alternation."""
LENGTHS = {"small": (2_000, 10_000, 40_000, 120_000), "medium": (250, 1_000, 4_000)}
ENGINES = ("fused", "compiled", "auto")
MAX_ROUNDS = 3


def cases(options: Options) -> list[Case]:
    """List what is timed."""
    return [
        Case({"size": size, "steps": steps, "engine": engine})
        for size, lengths in LENGTHS.items()
        for steps in (lengths[:1] if options.quick else lengths)
        for engine in ENGINES
    ]


def measure(size: str, steps: int, engine: str, options: Options) -> Iterator[Row]:
    """Time one fit."""
    from peers.pyrobbb_fit import fit_problem

    problem = timed_problem(SIZES[size], options.data)
    epochs = round((100 if options.quick else steps) / problem.steps_per_epoch)
    started = time.perf_counter()
    posterior = fit_problem(problem, lr=1e-3, epochs=max(epochs, 1), engine=engine)
    seconds = time.perf_counter() - started
    yield {"seconds": seconds, "took": posterior.settings["engine"]}


def section(rows: list[Row]) -> str:
    """Write one table."""
    lines = []
    for size, lengths in LENGTHS.items():
        for steps in lengths:
            found = {e: select(rows, size=size, steps=steps, engine=e) for e in ENGINES}
            label = f"{SIZES[size].title}: {steps:,} steps"
            if not all(pooled(group) for group in found.values()):
                why = next((failure(g) for g in found.values() if not pooled(g)), "")
                lines.append([label, why, "", "", "", ""])
                continue
            seconds = {e: median(pooled(group)) for e, group in found.items()}
            regret = seconds["auto"] / min(seconds["fused"], seconds["compiled"]) - 1
            took = ", ".join(dict.fromkeys(row["took"] for row in found["auto"]))
            cells = [significant(seconds[e] / S) for e in ENGINES]
            lines.append([label, *cells, took, f"{regret:+.0%}"])
    return table(["", *(f"{e}, s" for e in ENGINES), "auto took", "longer"], lines)


def main() -> None:
    """Time one fit."""
    arguments = parser(__doc__)
    arguments.add_argument("--size", choices=LENGTHS, required=True)
    arguments.add_argument("--steps", type=int, required=True)
    arguments.add_argument("--engine", choices=ENGINES, required=True)
    given = arguments.parse_args()
    emit(lambda: measure(given.size, given.steps, given.engine, options_of(given)))


if __name__ == "__main__":
    main()
