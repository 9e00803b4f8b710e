"""to_botorch: a posterior as a model of BoTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._core.arrays import as_count
from .._core.global_state import ordinary_modes
from .._core.messages import first_line, shown
from .._core.random_state import as_seed
from .._core.trees import n_rows
from ..export import Units
from ..fitted import FittedChain, HasChains
from ..fitted.draws import sources_of
from .drawn_outcomes import DrawnOutcomes


def to_botorch(
    posterior: HasChains,
    n_draws: int = 200,
    seed: int | None = None,
    *,
    input_transform: Any = None,
    outcome_transform: Any = None,
    units: Units | None = None,
) -> Any:
    """Return a posterior as a model of BoTorch, for Bayesian optimisation.

    Its posterior at X is an `EnsemblePosterior`: the mean of y under each draw of the weights. The
    draws are those of `predict` with the same seed, and the same in each call, so that acquisition
    functions are deterministic. Gradients flow to X. Networks and draws are converted to double
    precision, or stay as they are, with a line in the log, if the module then fails. Thompson
    sampling by ``PathwiseThompsonSampling`` or ``get_matheron_path_model`` takes single draws. See
    docs/how-to/bayesian-optimization.md.

    Parameters
    ----------
    posterior : Posterior
    n_draws : int
        Draws of the weights.
    seed : int, optional
        Seed of the draws.
    input_transform : botorch.models.transforms.input.InputTransform, optional
        From X to the inputs that the network was fitted to, such as ``Normalize``.
    outcome_transform : botorch.models.transforms.outcome.OutcomeTransform, optional
        From y to the targets that it was fitted to, such as ``Standardize``; trained.
    units : Units, optional
        Those of an estimator.

    Returns
    -------
    botorch.models.ensemble.EnsembleModel

    Raises
    ------
    ImportError
        If BoTorch is missing: it needs the extra `botorch`.
    TypeError, ValueError
        If an argument is invalid, x is not one array of shape (n, d), its rows interact, or y has
        no mean given the weights.
    """
    try:
        from .model import BayesianNetworkModel
        from .paths import draw_paths  # noqa: F401  # which registers it
    except ImportError as error:
        raise ImportError(
            f'BoTorch models need botorch: pip install "pyrobbb[botorch]" ({error}).'
        ) from error
    n_draws, seed = as_count("n_draws", n_draws), as_seed(seed)
    chains = posterior.chains
    _check_transforms(input_transform, outcome_transform)
    units = Units() if units is None else units
    example = _check_example(chains[0])
    with ordinary_modes(grad=False):
        outcomes = DrawnOutcomes(sources_of(chains, n_draws, seed), example, units, seed)
        row = _in_own_units(example, units)
        n_outputs = _trial(outcomes, row, chains[0], outcome_transform)
    return BayesianNetworkModel(
        outcomes, example.shape[1], n_outputs, input_transform, outcome_transform
    )


def _check_transforms(input_transform: Any, outcome_transform: Any) -> None:
    """Raise unless the transforms are of BoTorch."""
    from botorch.models.transforms.input import InputTransform
    from botorch.models.transforms.outcome import OutcomeTransform

    for name, value, kind in (
        ("input_transform", input_transform, InputTransform),
        ("outcome_transform", outcome_transform, OutcomeTransform),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"`{name}` must be an {kind.__name__} of BoTorch, got {shown(value)}.")
    for part in () if input_transform is None else input_transform.modules():
        if getattr(part, "learn_coefficients", False) and _is_identity(part):
            raise ValueError(
                f"`input_transform` ({type(part).__name__}) has not been trained: pass its bounds, "
                "or call it on the X of the fit first."
            )


def _is_identity(affine: Any) -> bool:
    return bool((affine.coefficient == 1).all() and (affine.offset == 0).all())


def _check_example(chain: FittedChain) -> Tensor:
    """Return the first row of x, or raise unless BoTorch's X can be the network's input."""
    x, network = chain.example, chain.network
    if not isinstance(x, Tensor) or x.dim() != 2 or not x.is_floating_point():
        got = f"rows of shape {tuple(x.shape[1:])}" if isinstance(x, Tensor) else "several arrays"
        raise ValueError(
            "`to_botorch` needs a network whose x is one array of real numbers, shape (n, d), got "
            f"{got}: fit a module that takes X of that shape, and converts it."
        )
    if n_rows(x) > 1:
        raise ValueError(
            f"`to_botorch` needs a network whose rows do not interact: the output of `net` "
            f"({type(network.net).__name__}) for a row depends on the other rows."
        )
    if network.traits(x).draws_numbers:
        raise ValueError(
            f"`to_botorch` needs a deterministic network, but `net` ({type(network.net).__name__}) "
            "draws random numbers when it predicts."
        )
    return x


def _in_own_units(example: Tensor, units: Units) -> Tensor:
    if units.input_scaling is None:
        return example.double()
    return units.input_scaling.loc[None].to(example.device)


def _trial(outcomes: DrawnOutcomes, row: Tensor, chain: FittedChain, outcome_transform: Any) -> int:
    """Return the number of outputs, or raise if a row has no finite values."""
    kind = type(chain.network.likelihood).__name__
    try:
        values = outcomes(row)
    except NotImplementedError:
        values = row.new_full((1, 1, 1), torch.nan)
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"`to_botorch` needs the mean of y given the weights, which the likelihood {kind} "
            "does not have."
        )
    if outcome_transform is not None:
        _check_undone(outcome_transform, values, row)
    return values.shape[-1]


def _check_undone(outcome_transform: Any, values: Tensor, row: Tensor) -> None:
    """Raise unless an outcome transform can be undone for the outputs."""
    try:
        undone, _ = outcome_transform.eval().untransform(values, X=row)
        reason = "" if undone.shape == values.shape else "it is for another number of outputs"
    except Exception as error:
        reason = first_line(error)
    if reason:
        raise ValueError(
            f"`outcome_transform` ({type(outcome_transform).__name__}) cannot be undone for "
            f"{values.shape[-1]} output(s): {reason}"
        )
