"""pyrobbb, by its public `fit`."""

from __future__ import annotations

import time
import warnings
from typing import Any

import pyrobbb
from problems import Problem
from pyrobbb import BayesianNetwork, likelihoods, priors

from .torch_learner import plain_net

CONSTANT = {"schedule": "constant", "kl_warmup": 0.0, "progress": False, "seed": 0}
"""As the other libraries: one learning rate, and the whole KL divergence from the start."""


def make_network(problem: Problem) -> BayesianNetwork:
    """Build the problem's network, at its start."""
    likelihood = (
        likelihoods.Gaussian(scale=problem.noise_scale)
        if problem.task == "regression"
        else likelihoods.Categorical()
    )
    return BayesianNetwork(plain_net(problem), priors.Normal(problem.prior_scale), likelihood)


def fit_problem(problem: Problem, *, lr: float = 1e-3, **options: Any) -> pyrobbb.Posterior:
    """Fit the posterior of a problem, by the steps that the other libraries take.

    Raises
    ------
    RuntimeError
        If the steps were not taken by the `engine` that was asked for: its time would be another's.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        posterior = pyrobbb.fit(
            make_network(problem),
            problem.x,
            problem.y,
            batch_size=problem.batch_size,
            lr=lr,
            **{**CONSTANT, **options},
        )
    asked, taken = options.get("engine", "auto"), posterior.settings["engine"]
    if asked not in ("auto", taken):
        why = [f": {w.message}" for w in warned if issubclass(w.category, RuntimeWarning)][-1:]
        raise RuntimeError("".join([f"fit took the engine {taken!r}, not {asked!r}", *why]))
    return posterior


def seconds_per_step(
    problem: Problem, *, budget: float, n_pairs: int, least_steps: int = 256, **options: Any
) -> list[float]:
    """Time a step by a long and a short fit: the difference, over the difference in steps.

    What a fit costs but once (checks, compilation, the posterior) is in both. They come after
    others that warm up, and in alternation.

    Parameters
    ----------
    problem : Problem
    budget : float
        Seconds by which the long fit takes longer, at least.
    n_pairs : int
        How many long and short fits.
    least_steps : int
        Of the short fit. The steps of both are about a multiple: some engines take steps by the
        hundred in one call, and what is left over one by one.
    **options
        Of `pyrobbb.fit`, such as `engine`.

    Returns
    -------
    list of float
        Seconds a step, by each pair.
    """
    unit = _whole_epochs(problem.steps_per_epoch, least_steps)
    fit_seconds(problem, unit, **options)
    n_more = 1
    while True:
        short = fit_seconds(problem, unit, **options)
        longer = fit_seconds(problem, unit * (1 + n_more), **options) - short
        if longer >= budget:
            break
        n_more *= min(16, max(2, round(1.2 * budget / max(longer, 1e-3))))
    n_steps = n_more * unit * problem.steps_per_epoch
    seconds = [longer / n_steps]
    for _ in range(n_pairs - 1):
        short = fit_seconds(problem, unit, **options)
        longer = fit_seconds(problem, unit * (1 + n_more), **options) - short
        seconds.append(longer / n_steps)
    return seconds


def fit_seconds(problem: Problem, epochs: int, **options: Any) -> float:
    """Time one fit."""
    started = time.perf_counter()
    fit_problem(problem, epochs=epochs, **options)
    return time.perf_counter() - started


def _whole_epochs(steps_per_epoch: int, least_steps: int) -> int:
    """Return the fewest epochs whose steps are a multiple of so many, if an epoch has fewer."""
    if steps_per_epoch >= least_steps or least_steps % steps_per_epoch == 0:
        return max(1, least_steps // steps_per_epoch)
    return least_steps
