"""Measure how noisy the gradients of each estimator are, and what a step of it costs."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from harness import Case, Options, Row, emit, options_of, parser
from problems import SIZES, timed_problem
from summary import MS, failure, pooled, select, significant, table
from timing import block_seconds

TITLE = "Variance of the gradients"
CAPTION = """\
The variance of a gradient over draws, summed over all weights, relative to that of
`estimator="reparam"` on the same batch; and the milliseconds for a loss with its gradients with
`FusedELBO("mean_field")`. At a posterior after 10 epochs; {n_draws} draws. Medians over rounds."""
N_DRAWS = 400
ESTIMATORS = ("reparam", "local", "flipout")
TITLES = {"small": "13-50-1, batch 100", "medium": "784-400-400-10, batch 128"}
MAX_ROUNDS = 3


def cases(options: Options) -> list[Case]:
    """List what is measured: one process takes all estimators of a net."""
    return [Case({"size": size}) for size in TITLES]


def measure(size: str, options: Options) -> Iterator[Row]:
    """Draw gradients by each estimator, at one posterior and one batch."""
    import torch

    from peers.pyrobbb_fit import fit_problem
    from pyrobbb import FusedELBO

    problem = timed_problem(SIZES[size], options.data)
    posterior = fit_problem(problem, lr=1e-3, epochs=1 if options.quick else 10, engine="fused")
    network, guide = posterior.network, posterior.guide
    n, n_data = problem.batch_size, len(problem.x)
    x, y = (torch.as_tensor(part[:n]) for part in (problem.x, problem.y))
    torch.manual_seed(0)
    for estimator in ESTIMATORS:
        elbo = FusedELBO("mean_field", estimator=estimator)

        def gradients(elbo: FusedELBO = elbo) -> list[torch.Tensor]:
            loss = elbo.differentiable_loss(network, guide, x, y, n_data)
            return list(torch.autograd.grad(loss, [guide.loc, guide.rho]))

        variances = [_Variance(), _Variance()]
        for _ in range(8 if options.quick else N_DRAWS):
            for variance, gradient in zip(variances, gradients(), strict=True):
                variance.add(gradient)
        yield {
            "estimator": estimator,
            "loc": variances[0].total(),
            "rho": variances[1].total(),
            "seconds": block_seconds(gradients, budget=0.05 if options.quick else 2.0),
        }


class _Variance:
    """The variance of vectors that come one by one (Welford 1962), summed over their elements."""

    def __init__(self) -> None:
        self._n, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, vector: object) -> None:
        self._n += 1
        change = vector - self._mean
        self._mean = self._mean + change / self._n
        self._squares = self._squares + change * (vector - self._mean)

    def total(self) -> float:
        return float(self._squares.sum()) / (self._n - 1)


def section(rows: list[Row]) -> str:
    """Write a table of each net."""
    parts = []
    for size, title in TITLES.items():
        found = {e: select(rows, size=size, estimator=e) for e in ESTIMATORS}
        if not all(found.values()):
            parts.append(f"### {title}\n\n{failure(select(rows, size=size))}")
            continue
        plain = found["reparam"]
        lines = [
            [
                estimator,
                *(
                    significant(median(pooled(group, of=p)) / median(pooled(plain, of=p)), 2)
                    for p in ("loc", "rho")
                ),
                significant(median(pooled(group)) / MS),
            ]
            for estimator, group in found.items()
        ]
        head = ["", "variance of d loc", "variance of d rho", "ms"]
        parts.append(f"### {title}\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def caption(rows: list[Row]) -> str:
    """Return the caption."""
    return CAPTION.format(n_draws=N_DRAWS)


def main() -> None:
    """Measure one net."""
    arguments = parser(__doc__)
    arguments.add_argument("--size", choices=TITLES, required=True)
    given = arguments.parse_args()
    emit(lambda: measure(given.size, options_of(given)))


if __name__ == "__main__":
    main()
