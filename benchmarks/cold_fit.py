"""Time a whole process that fits a posterior: imports, compilation, steps."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from harness import Case, Options, Row, emit, limit_threads, options_of, parser, wall_seconds
from problems import Problem, made_regression
from summary import S, failure, pooled, ratio, select, significant, spread_cells, table

TITLE = "A fit from a cold start"
CAPTION = """\
Seconds from the start of a process to its end, including a fit: interpreter, imports, compilation
and 5000 steps (1000 epochs of 455 rows in batches of 100) for the network 13-50-1. Median and
quartiles over rounds; one fit per process, in alternation. PyTorch caches compiled code on disk:
"empty cache" is the first such fit on a machine, "kept cache" every later one. The parts are
medians. The loss is the mean negative ELBO of the last 100 steps, in nats, as a check that all do
the same work."""
N_ROWS, WIDTHS, BATCH_SIZE, N_EPOCHS, LR = 455, (13, 50, 1), 100, 1000, 0.01
WAYS = {
    "pyrobbb-auto": "pyrobbb, auto",
    "pyrobbb-fused": "pyrobbb, fused",
    "pyrobbb-compiled": "pyrobbb, compiled",
    "numpyro-scan": "NumPyro, one scan",
    "pyro": "Pyro SVI",
}
COMPILING = ("pyrobbb-auto", "pyrobbb-compiled")
RATIOS = [
    (("pyro", None), ("pyrobbb-auto", "kept")),
    (("numpyro-scan", None), ("pyrobbb-auto", "kept")),
    (("numpyro-scan", None), ("pyrobbb-auto", "empty")),
    (("numpyro-scan", None), ("pyrobbb-fused", None)),
]


def cases(options: Options) -> list[Case]:
    """List what is timed; what may compile, with and without its cache on disk."""
    listed = []
    for way in WAYS:
        caches = ("empty", "kept") if way in COMPILING else (None,)
        listed += [Case({"peer": way, **({"cache": c} if c else {})}) for c in caches]
    return listed


def measure(way: str, cache: str | None, threads: int | None, options: Options) -> Iterator[Row]:
    """Time a process that fits, from outside."""
    limit_threads(threads)
    command = [sys.executable, "-W", "ignore", __file__, "--peer", way, "--inside"]
    if options.quick:
        command.append("--quick")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
        if cache == "kept":
            wall_seconds(command, environment)
        seconds, printed = wall_seconds(command, environment)
    inside = [json.loads(line) for line in printed.splitlines() if line.startswith("{")][-1]
    if "failed" in inside:
        raise RuntimeError(inside["failed"])
    yield {"seconds": seconds, **inside}


def fit_inside(way: str, options: Options) -> Iterator[Row]:
    """Import a library and fit, in this process."""
    x, y = made_regression(N_ROWS, WIDTHS[0])
    problem = Problem(WIDTHS, "regression", BATCH_SIZE, N_ROWS, x, y)
    started = time.perf_counter()
    if way.startswith("pyrobbb-"):
        from peers.pyrobbb_fit import fit_problem as fit
    elif way == "pyro":
        from peers.pyro_svi import PyroSVI as Learner
    else:
        from peers.numpyro_svi import NumPyroSVI as Learner
    imported = time.perf_counter()
    n_epochs = 4 if options.quick else N_EPOCHS
    row: Row = {"import_seconds": imported - started}
    if way.startswith("pyrobbb-"):
        posterior = fit(problem, lr=LR, epochs=n_epochs, engine=way.removeprefix("pyrobbb-"))
        nelbo = posterior.history.nelbo
        row["engine"] = posterior.settings["engine"]
    else:
        nelbo = _learn(Learner(problem, LR), problem.batches(n_epochs))
    row["fit_seconds"] = time.perf_counter() - imported
    row["nelbo"] = float(np.mean(nelbo[-100:]))
    yield row


def _learn(learner: Any, rows: np.ndarray) -> np.ndarray:
    """Take a step on each batch: in one call where the library can; then fetch the posterior."""
    if hasattr(learner, "steps"):
        nelbo = learner.steps(rows)
    else:
        nelbo = np.array([learner.step(*learner.batch(batch)) for batch in rows])
    learner.weights()
    return nelbo


def section(rows: list[Row]) -> str:
    """Write the tables."""
    found = {
        (way, cache): select(rows, peer=way, **({"cache": cache} if cache else {}))
        for way in WAYS
        for cache in (("empty", "kept") if way in COMPILING else (None,))
    }
    lines = []
    for key, group in sorted(found.items(), key=lambda item: _middle(item[1])):
        if not pooled(group):
            lines.append([_label(*key), failure(group), *[""] * 4])
            continue
        parts = [
            significant(median(pooled(group, of=part)))
            for part in ("import_seconds", "fit_seconds")
        ]
        nelbo = f"{median(pooled(group, of='nelbo')):.0f}"
        lines.append([_label(*key, group), *spread_cells(pooled(group), S), *parts, nelbo])
    head = ["", "median, s", "quartiles, s", "imports, s", "fit, s", "loss, nats"]
    ratios = [
        [f"{_label(*above)} / {_label(*below)}", ratio(found[above], found[below])]
        for above, below in RATIOS
    ]
    return f"{table(head, lines)}\n\n{table(['', 'ratio (rounds)'], ratios)}"


def _middle(group: list[Row]) -> float:
    return median(pooled(group)) if pooled(group) else float("inf")


def _label(way: str, cache: str | None, group: list[Row] | None = None) -> str:
    label = WAYS[way]
    if way == "pyrobbb-auto" and group:
        label += f" (took {group[0]['engine']})"
    return f"{label}, {cache} cache" if cache else label


def main() -> None:
    """Time one library, or be the process that is timed."""
    arguments = parser(__doc__)
    arguments.add_argument("--peer", choices=WAYS, required=True)
    arguments.add_argument("--cache", choices=("empty", "kept"), help="of compiled code")
    arguments.add_argument("--threads", type=int, help="default: as the library likes")
    arguments.add_argument("--inside", action="store_true", help="fit in this process")
    given = arguments.parse_args()
    if given.inside:
        emit(lambda: fit_inside(given.peer, options_of(given)))
    else:
        emit(lambda: measure(given.peer, given.cache, given.threads, options_of(given)))


if __name__ == "__main__":
    main()
