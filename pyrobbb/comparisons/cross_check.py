"""Cross-check: the same loss and gradients, computed by independent routes.

At the same initial values and the same noise, the loss and its gradients with respect to loc and
rho are computed by two guides, three objectives and NumPy, in double precision. Then both guides
are fitted under the same noise, and their parameters compared after each step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from .._core.arrays import ArrayLike, as_count, check_positive
from .._core.display import Displayed, Listing
from .._core.random_state import as_seed, globally_seeded
from .._core.signatures import suggests_arguments
from ..elbo.fused_loss import CannotFuseError
from ..model.guides import MeanFieldGuide, auto_normal
from ..model.network import BayesianNetwork
from .numpy_route import NotCoveredError, by_reference
from .pyro_route import FixedNoise, by_fused_elbo, by_pyro, draw_noise, flatten, parameters_of

RELATIVE_TOLERANCE = 1e-8
"""Allowed relative difference of routes that compute the same number in double precision."""
STANDARD_ERRORS = 5.0
"""Allowed difference, in standard errors, of means over draws with sampled and with closed-form KL
divergences. Five, because the worst of many gradients is compared."""

AUTO, MEAN_FIELD = "AutoNormal, Trace_ELBO", "MeanFieldGuide, Trace_ELBO"
CLOSED, FUSED = "MeanFieldGuide, TraceMeanField_ELBO", "MeanFieldGuide, FusedELBO"
NUMPY = "NumPy, gradients by hand"


@dataclass(frozen=True)
class Comparison:
    """The comparison of one quantity, computed by one route, with the first route.

    Attributes
    ----------
    quantity, route : str
        What was computed, and by which route.
    value : float
        The loss, or the norm of a gradient or of the parameters.
    difference, allowed : float
        Largest absolute difference from the first route, and the largest allowed one.
    """

    quantity: str
    route: str
    value: float
    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the difference is allowed; NaN never is."""
        return bool(self.difference <= self.allowed)


@dataclass(frozen=True, repr=False)
class CrossCheck(Displayed):
    """The result of `crosscheck`.

    Attributes
    ----------
    comparisons : tuple of Comparison
    notes : tuple of str
        Which routes were omitted, and why.
    """

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all routes agree."""
        return all(comparison.ok for comparison in self.comparisons)

    @property
    def table(self) -> str:
        """The comparisons as text, one per line."""
        head = f"{'quantity':<29} {'route':<36} {'value':>14} {'difference':>11} {'allowed':>9}"
        lines = [head, "-" * (len(head) + 8)]
        lines += [
            f"{c.quantity:<29} {c.route:<36} {c.value:>14.6f} {c.difference:>11.1e} "
            f"{c.allowed:>9.1e}  {'ok' if c.ok else 'DIFFERS'}"
            for c in self.comparisons
        ]
        return "\n".join([*lines, *self.notes])

    def _listing(self) -> Listing:
        rows = [
            (
                c.quantity,
                c.route,
                f"{c.value:.6f}",
                f"{c.difference:.1e}",
                f"{c.allowed:.1e}",
                "ok" if c.ok else "DIFFERS",
            )
            for c in sorted(self.comparisons, key=lambda c: c.ok)
        ]
        header = ("quantity", "route", "value", "difference", "allowed", "")
        notes = (*self.notes, str(self).splitlines()[-1])
        return Listing("CrossCheck", header, rows, notes)

    def __str__(self) -> str:
        failed = sum(not comparison.ok for comparison in self.comparisons)
        verdict = (
            f"All {len(self.comparisons)} comparisons agree."
            if self.ok
            else f"{failed} of {len(self.comparisons)} comparisons DIFFER."
        )
        return f"{self.table}\n{verdict}"


@suggests_arguments()
def crosscheck(
    network: BayesianNetwork,
    x: ArrayLike,
    y: ArrayLike,
    *,
    n_steps: int = 20,
    lr: float = 0.01,
    n_draws: int = 200,
    seed: int = 0,
) -> CrossCheck:
    """Compute loss, gradients and a short fit by independent routes, and compare them.

    (a) Pyro's `AutoNormal` under `Trace_ELBO`; (b) `MeanFieldGuide` under `Trace_ELBO`; (c)
    `MeanFieldGuide` under `TraceMeanField_ELBO`, which agrees in the mean over draws; (d)
    `FusedELBO`, which `fit` uses for its steps; (e) for a plain `mlp`, `pyrobbb.reference`: NumPy
    with gradients derived by hand. Then (a) and (b) are fitted by Pyro's SVI under the same noise,
    and their parameters compared at every step.

    Parameters
    ----------
    network : BayesianNetwork
        A copy of it is used, in evaluation mode and double precision.
    x, y : array-like of shape (n, ...)
    n_steps : int
        Steps of the short fit.
    lr : float
        Learning rate of the short fit.
    n_draws : int
        Draws over which (b) and (c) are averaged.
    seed : int

    Returns
    -------
    CrossCheck
        Prints as a table; ``ok`` is whether all routes agree.
    """
    n_steps, n_draws = as_count("n_steps", n_steps, least=2), as_count("n_draws", n_draws, least=2)
    check_positive("lr", lr)
    network = copy.deepcopy(network).double().eval()
    x, y = network.prepare(x, y)
    with globally_seeded(as_seed(seed)), poutine.block():
        mean_field, auto = MeanFieldGuide(network, x), auto_normal(network)
        with torch.no_grad():
            auto(x)
        noises = [draw_noise(mean_field) for _ in range(max(n_steps, n_draws))]

        first = by_pyro(network, auto, x, y, noises[0])
        routes = {AUTO: first, MEAN_FIELD: by_pyro(network, mean_field, x, y, noises[0])}
        notes = []
        try:
            routes[FUSED] = by_fused_elbo(network, mean_field, x, y, noises[0])
        except CannotFuseError as reason:
            notes.append(f"{FUSED}: omitted, {reason}.")
        try:
            routes[NUMPY] = by_reference(network, mean_field, x, y, noises[0])
        except NotCoveredError as reason:
            notes.append(f"{NUMPY}: omitted, {reason}.")
        comparisons = [
            _compare(quantity, route, result.by_quantity()[quantity], value)
            for quantity, value in first.by_quantity().items()
            for route, result in routes.items()
        ]
        comparisons += _compare_means(network, mean_field, x, y, noises[:n_draws])
        comparisons += _compare_fits(network, auto, mean_field, x, y, noises[:n_steps], lr)
    return CrossCheck(tuple(comparisons), tuple(notes))


def _compare(quantity: str, route: str, value: np.ndarray, first: np.ndarray) -> Comparison:
    size = float(np.abs(first).max())
    difference = float(np.abs(value - first).max()) if value.shape == first.shape else np.inf
    norm = float(value[0]) if value.size == 1 else float(np.linalg.norm(value))
    return Comparison(quantity, route, norm, difference, RELATIVE_TOLERANCE * max(size, 1.0))


def _compare_means(
    network: BayesianNetwork,
    guide: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noises: list[dict[str, Tensor]],
) -> list[Comparison]:
    """Compare sampled with closed-form KL divergences: equal within their Monte Carlo error."""
    sampled, closed = (
        [by_pyro(network, guide, x, y, noise, elbo).by_quantity() for noise in noises]
        for elbo in (Trace_ELBO(), TraceMeanField_ELBO())
    )
    comparisons = []
    for quantity in sampled[0]:
        first, values = (
            np.array([draw[quantity] for draw in draws]) for draws in (sampled, closed)
        )
        gaps = np.abs((first - values).mean(0))
        errors = (first - values).std(0, ddof=1) / np.sqrt(len(noises))
        # A rare event may occur in none of the draws, so that its error is underestimated: no
        # error is assumed to be smaller than the typical one.
        errors = np.maximum(errors, np.sqrt((errors**2).mean()))
        # Where no KL divergence has a closed form, the two are the same sampled number.
        allowed = STANDARD_ERRORS * errors + RELATIVE_TOLERANCE * max(np.abs(first).max(), 1.0)
        worst = int(np.argmax(gaps / allowed))
        mean = values.mean(0)
        value = float(mean[0]) if mean.size == 1 else float(np.linalg.norm(mean))
        name = f"{quantity}, mean of {len(noises)}"
        comparisons.append(
            Comparison(name, CLOSED, value, float(gaps[worst]), float(allowed[worst]))
        )
    return comparisons


def _compare_fits(
    network: BayesianNetwork,
    auto: AutoNormal,
    mean_field: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noises: list[dict[str, Tensor]],
    lr: float,
) -> list[Comparison]:
    # Each guide needs a copy of the network, because its point parameters are trained as well.
    sides = []
    for guide in (auto, mean_field):
        model = copy.deepcopy(network)
        sides.append((guide, SVI(model, guide, pyro.optim.Adam({"lr": lr}), Trace_ELBO())))
    worst = {"loc": 0.0, "rho": 0.0}
    ends: dict[str, np.ndarray] = {}
    for noise in noises:
        for _, svi in sides:
            with FixedNoise(noise):
                svi.step(x, y)
        pairs = zip(*(parameters_of(guide, noise) for guide, _ in sides), strict=True)
        for name, (of_auto, of_mean_field) in zip(worst, pairs, strict=True):
            first, ends[name] = flatten(of_auto), flatten(of_mean_field)
            worst[name] = float(np.maximum(worst[name], np.abs(first - ends[name]).max()))
    return [
        Comparison(
            f"{name}, {len(noises)} steps of SVI",
            MEAN_FIELD,
            float(np.linalg.norm(ends[name])),
            worst[name],
            RELATIVE_TOLERANCE * max(1.0, float(np.abs(ends[name]).max())),
        )
        for name in worst
    ]
