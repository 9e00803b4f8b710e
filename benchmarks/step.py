"""Time one training step: one draw of the weights, Adam, in each library."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from statistics import median

import numpy as np

from harness import Case, Options, Row, can_pin, emit, limit_threads, options_of, parser
from peers import PEERS
from problems import SIZES, Problem, first_rows, timed_problem
from summary import MS, failure, pooled, ratio, select, spread_cells, table
from timing import block_seconds

TITLE = "One training step"
CAPTION = """\
Milliseconds per step: one draw of the weights, one batch, Adam at a learning rate of 0.001, and the
loss read. Median and quartiles over blocks of steps and over rounds; one library per process, in
alternation. The other libraries repeat steps on one batch; pyrobbb's figure is for `pyrobbb.fit`:
the difference of a long and a short fit, including shuffling and batches. The small network was
timed with one thread and with all, and the faster result is shown for each library."""
RATIO_CAPTION = """\
Time of the first divided by that of the second: the ratio of the medians, in brackets the lowest
and highest ratio of a round."""
RATIOS = [
    ("pyro", "pyrobbb-compiled"),
    ("numpyro-scan", "pyrobbb-compiled"),
    ("deterministic", "pyrobbb-compiled"),
    ("by-hand", "pyrobbb-compiled"),
    ("pyro", "pyrobbb-fused"),
    ("by-hand", "pyrobbb-fused"),
    ("pyrobbb-svi", "pyrobbb-compiled"),
]
SCAN_LENGTH = 100
STEPS_IN_ONE_CALL = {"small": 256, "medium": 64, "large": 64}
"""Steps per call of pyrobbb's compiled engine, or a multiple of it."""
BUDGET = {"small": 1.5, "medium": 3.0, "large": 4.0}
"""Seconds that a library is timed for, in each process."""


def cases(options: Options) -> list[Case]:
    """List what is timed: for the small net also with one thread, which may be faster."""
    listed = []
    for size in itertools.islice(SIZES, 2 if options.quick else None):
        for name, peer in PEERS.items():
            listed.append(Case({"size": size, "peer": name}))
            may_limit = peer.library == "torch" or can_pin()
            if size == "small" and may_limit and not options.quick and (os.cpu_count() or 1) > 1:
                listed.append(Case({"size": size, "peer": name, "threads": 1}))
    return listed


def measure(size: str, peer: str, threads: int | None, options: Options) -> Iterator[Row]:
    """Time the steps of a library on a problem."""
    n_threads = limit_threads(threads, PEERS[peer].library)
    problem = timed_problem(SIZES[size], options.data)
    budget = 0.1 if options.quick else BUDGET[size]
    if PEERS[peer].engine:
        seconds = fit_seconds(size, PEERS[peer].engine, problem, budget, quick=options.quick)
    else:
        seconds = learner_seconds(peer, problem, budget, quick=options.quick)
    yield {"seconds": seconds, "n_threads": n_threads}


def learner_seconds(peer: str, problem: Problem, budget: float, *, quick: bool) -> list[float]:
    """Time a library that is stepped from here."""
    learner = PEERS[peer].load()(problem)
    x, y = learner.batch(np.arange(problem.batch_size))
    n_blocks, n_warm_up = (4, 2) if quick else (20, 20)
    if peer != "numpyro-scan":
        return block_seconds(
            lambda: learner.step(x, y), budget=budget, n_blocks=n_blocks, n_warm_up=n_warm_up
        )
    n_steps = 10 if quick else SCAN_LENGTH
    calls = block_seconds(
        lambda: learner.steps_on(x, y, n_steps), budget=budget, n_blocks=n_blocks, n_warm_up=2
    )
    return [seconds / n_steps for seconds in calls]


def fit_seconds(
    size: str, engine: str, problem: Problem, budget: float, *, quick: bool
) -> list[float]:
    """Time pyrobbb by its public `fit`."""
    from peers.pyrobbb_fit import seconds_per_step

    compiled = engine == "compiled"
    if quick:
        problem = first_rows(problem, 4 * problem.batch_size)
        least_steps = STEPS_IN_ONE_CALL[size] if compiled else 4
        return seconds_per_step(
            problem, budget=0.02, n_pairs=1, least_steps=least_steps, engine=engine
        )
    least_steps = STEPS_IN_ONE_CALL[size] if compiled else 64
    return seconds_per_step(
        problem, budget=budget, n_pairs=4, least_steps=least_steps, engine=engine
    )


def fastest(rows: list[Row]) -> list[Row]:
    """Of one library's rows with one thread and with more, give the faster ones."""
    groups = [select(rows, threads=threads) for threads in {row.get("threads") for row in rows}]
    timed = [group for group in groups if pooled(group)]
    return min(timed, key=lambda group: median(pooled(group))) if timed else rows


def section(rows: list[Row]) -> str:
    """Write the tables."""
    parts = []
    sizes = {size: problem for size, problem in SIZES.items() if select(rows, size=size)}
    for size, problem in sizes.items():
        found = {name: fastest(select(rows, size=size, peer=name)) for name in PEERS}
        timed = {name: group for name, group in found.items() if pooled(group)}
        order = sorted(timed, key=lambda name: median(pooled(timed[name])))
        lines = [
            [
                _label(name),
                str(timed[name][0]["n_threads"]),
                *spread_cells(pooled(timed[name]), MS),
            ]
            for name in order
        ]
        parts.append(f"### {problem.title}")
        parts.append(table(["", "threads", "median, ms", "quartiles, ms"], lines))
        missing = [
            f"- {PEERS[name].label}: {failure(group)}"
            for name, group in found.items()
            if name not in timed and group
        ]
        if missing:
            parts.append("Missing:\n\n" + "\n".join(missing))
    parts += ["### Ratios of a step", RATIO_CAPTION]
    lines = []
    for above, below in RATIOS:
        pairs = [
            [fastest(select(rows, size=size, peer=name)) for name in (above, below)]
            for size in sizes
        ]
        lines.append(
            [f"{PEERS[above].label} / {PEERS[below].label}", *(ratio(*pair) for pair in pairs)]
        )
    parts.append(table(["", *(problem.title for problem in sizes.values())], lines))
    return "\n\n".join(parts)


def _label(name: str) -> str:
    label = PEERS[name].label
    return f"**{label}**" if PEERS[name].engine else label


def main() -> None:
    """Time one library on one problem."""
    arguments = parser(__doc__)
    arguments.add_argument("--size", choices=SIZES, required=True)
    arguments.add_argument("--peer", choices=PEERS, required=True)
    arguments.add_argument("--threads", type=int, help="default: as the library likes")
    given = arguments.parse_args()
    emit(lambda: measure(given.size, given.peer, given.threads, options_of(given)))


if __name__ == "__main__":
    main()
