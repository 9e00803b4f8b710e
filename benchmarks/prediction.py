"""Time predictions, and their memory: the mean and spread of many draws at many rows."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np

from harness import Case, Options, Row, emit, options_of, parser
from problems import Problem, made_regression
from summary import MIB, S, failure, pooled, ratio, select, significant, spread_cells, table

TITLE = "Prediction"
CAPTION = """\
Seconds for the predictive mean and standard deviation at 10,000 rows from 1,000 draws of the
weights of one fitted network 13-50-1, and the increase of the peak memory of the process. With
`Predictive` the moments are those of y drawn at each row; `posterior.predict` computes the moments
of the mixture. Median and quartiles over calls and rounds; each in processes of its own, in
alternation."""
N_ROWS, N_DRAWS, N_CALLS = 10_000, 1_000, 3
WAYS = {
    "pyrobbb": "`posterior.predict`",
    "parallel": "`Predictive(parallel=True)`",
    "looped": "`Predictive(parallel=False)`",
}


def cases(options: Options) -> list[Case]:
    """List what is timed."""
    return [Case({"way": way}) for way in WAYS]


def measure(way: str, options: Options) -> Iterator[Row]:
    """Fit, then predict; the fit is the same in every process."""
    from peers.pyrobbb_fit import fit_problem

    n_rows, n_draws, n_calls = (500, 50, 1) if options.quick else (N_ROWS, N_DRAWS, N_CALLS)
    x, y = made_regression(455, 13)
    problem = Problem((13, 50, 1), "regression", 100, len(x), x, y)
    posterior = fit_problem(problem, lr=0.01, epochs=2 if options.quick else 40)
    x_new, _ = made_regression(n_rows, 13, seed=1)
    predict = _predict if way == "pyrobbb" else _predictive(parallel=way == "parallel")
    before = _peak_bytes()
    seconds, mean, sd = [], np.zeros(0), np.zeros(0)
    for _ in range(n_calls):
        started = time.perf_counter()
        mean, sd = predict(posterior, x_new, n_draws)
        seconds.append(time.perf_counter() - started)
    yield {
        "seconds": seconds,
        "bytes": _peak_bytes() - before,
        "mean": float(np.abs(mean).mean()),
        "sd": float(sd.mean()),
    }


def _predict(posterior: Any, x: np.ndarray, n_draws: int) -> tuple[np.ndarray, np.ndarray]:
    prediction = posterior.predict(x, n_draws=n_draws, seed=0)
    return prediction.mean, prediction.sd


def _predictive(*, parallel: bool) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    import torch
    from pyro.infer import Predictive

    def predict(posterior: Any, x: np.ndarray, n_draws: int) -> tuple[np.ndarray, np.ndarray]:
        predictive = Predictive(
            posterior.network,
            guide=posterior.guide,
            num_samples=n_draws,
            return_sites=("y",),
            parallel=parallel,
        )
        with torch.no_grad():
            y = predictive(torch.as_tensor(x))["y"]
        return y.mean(0).numpy(), y.std(0).numpy()

    return predict


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def section(rows: list[Row]) -> str:
    """Write the table."""
    ours = select(rows, way="pyrobbb")
    lines = []
    for way, label in WAYS.items():
        group = select(rows, way=way)
        if not pooled(group):
            lines.append([label, failure(group), *[""] * 5])
            continue
        lines.append(
            [
                label,
                *spread_cells(pooled(group), S),
                ratio(group, ours),
                significant(median(pooled(group, of="bytes")) / MIB),
                significant(median(pooled(group, of="mean"))),
                significant(median(pooled(group, of="sd"))),
            ]
        )
    head = [
        "",
        "median, s",
        "quartiles, s",
        "times pyrobbb's (rounds)",
        "memory, MiB",
        "mean of abs(mean)",
        "mean of sd",
    ]
    return table(head, lines)


def main() -> None:
    """Time one way to predict."""
    arguments = parser(__doc__)
    arguments.add_argument("--way", choices=WAYS, required=True)
    given = arguments.parse_args()
    emit(lambda: measure(given.way, options_of(given)))


if __name__ == "__main__":
    main()
