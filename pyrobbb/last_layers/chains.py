"""Fitted chains of last layers: made from rows, and conditioned on further rows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, check_positive
from .._core.messages import shown
from .._core.trees import Inputs, InputsLike, n_rows, rows_of
from ..fitted import FitSettings, FittedChain, History
from ..likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from ..model.guides import DenseGuide
from ..model.inputs import prepare_inputs
from ..model.names import LIKELIHOODS, resolve
from ..model.network import BayesianNetwork
from ..model.outputs import Selection
from ..model.trial import traits_of
from .classes import Classes, fit_classes
from .features import MAX_WEIGHTS, ROWS_PER_CALL, LastLayer, copied, last_layer_of
from .priors import UnitPrior, given_prior, isotropic_prior
from .regression import NormalBelief, Statistics, choose_scales, condition_on

logger = logging.getLogger(__name__)

ENGINE = "closed_form"


def is_last_layer(chain: FittedChain) -> bool:
    """Return whether a chain is one of `fit_last_layer`."""
    return chain.settings.engine == ENGINE and type(chain.guide) is DenseGuide


def fit_last_layer(
    network: BayesianNetwork | nn.Module,
    x: InputsLike,
    y: ArrayLike,
    *,
    likelihood: str | Likelihood | None = None,
    prior_scale: float | None = None,
    noise_scale: float | Sequence[float] | None = None,
) -> FittedChain:
    """Return the posterior of the last linear layer of a network; see `pyrobbb.last_layer`."""
    module: Any = network.net if isinstance(network, BayesianNetwork) else network
    likelihood = _likelihood_of(network, likelihood)
    if prior_scale is not None:
        check_positive("prior_scale", prior_scale)
    select = network.select if isinstance(network, BayesianNetwork) else None
    last, rows = _last_layer(module, x, select)
    given = None
    if prior_scale is None and isinstance(network, BayesianNetwork):
        given = given_prior(network, last)
    prior = isotropic_prior(last, torch.ones(1)).prior
    trial = BayesianNetwork(last.net, prior, likelihood, output=select)
    rows, y = trial.prepare(x, y)
    if isinstance(likelihood, Gaussian):
        noise = _noise_of(likelihood, noise_scale, last.layer.out_features)
        result = _fit_regression(last, rows, y, prior_scale, given, noise)
    elif noise_scale is not None:
        raise ValueError("`noise_scale` must be left out: it is for a Gaussian likelihood.")
    else:
        result = _fit_classes(last, rows, y, likelihood, prior_scale, given)
    fitted = BayesianNetwork(last.net, result.prior, result.likelihood, output=select).eval()
    fitted.fix_parameters()
    guide = DenseGuide(fitted, len(result.mean))
    guide.set_moments(result.mean, result.covariance)
    settings = FitSettings(
        engine=ENGINE, objective=result.objective, n_data=len(y), notes=result.notes
    )
    history = _history(-result.notes["log_evidence"], result.nll, len(y))
    logger.info("Last layer %r in closed form: %s", last.name, result.notes)
    return FittedChain(fitted, guide, history, fitted.example_of(rows), settings)


def condition(chain: FittedChain, x: InputsLike, y: ArrayLike) -> FittedChain:
    """Condition the posterior of a last layer on further rows; the scales stay as they are.

    Raises
    ------
    TypeError
        If the likelihood is not Gaussian, for which the posterior is not conjugate.
    """
    network, guide, notes = chain.network, chain.guide, dict(chain.settings.notes)
    assert isinstance(guide, DenseGuide)
    if not isinstance(network.likelihood, Gaussian):
        raise TypeError(
            "`posterior` must have a Gaussian likelihood for an update in closed form, got "
            f"{type(network.likelihood).__name__}: call last_layer with all rows."
        )
    rows, y = network.prepare(x, y)
    name = network.bayesian_parameters()[0][0].removesuffix("weight").removesuffix(".")
    layer: Any = network.net.get_submodule(name)
    mixes_rows = network.traits(rows).mixes_rows
    last = LastLayer(network.net, layer, name, len(y) if mixes_rows else ROWS_PER_CALL)
    statistics = Statistics.of(last.features(rows), y)
    mean, covariance = (part.to(statistics.gram) for part in guide.moments())
    belief = NormalBelief(mean, torch.cholesky_inverse(torch.linalg.cholesky(covariance)))
    noise = _noise_of(network.likelihood, None, len(mean))
    assert noise is not None
    done = condition_on(belief, statistics, noise.to(mean))
    renewed = guide.renewed(network)
    renewed.set_moments(done.mean, done.covariance)
    notes["log_evidence"] = notes["log_evidence"] + done.log_evidence
    n_data = (chain.settings.n_data or 0) + len(y)
    return dataclasses.replace(
        chain,
        guide=renewed,
        history=_history(-done.log_evidence, done.nll, len(y)),
        settings=dataclasses.replace(chain.settings, n_data=n_data, notes=notes),
    )


@dataclasses.dataclass(frozen=True)
class _Result:
    """The posterior of a last layer, by block of weights, and the model that it belongs to."""

    prior: Any
    likelihood: Likelihood
    mean: Tensor
    covariance: Tensor
    objective: str
    nll: float
    notes: dict[str, Any]


def _likelihood_of(
    network: BayesianNetwork | nn.Module, likelihood: str | Likelihood | None
) -> Likelihood:
    """Return the likelihood, checked."""
    if not isinstance(network, nn.Module):
        raise TypeError(
            "`network` must be a BayesianNetwork or a torch.nn.Module, got "
            f"{type(network).__name__}."
        )
    if isinstance(network, BayesianNetwork):
        if likelihood is not None:
            raise ValueError("`likelihood` must be left out: it is that of the BayesianNetwork.")
        likelihood = network.likelihood
    likelihood = Gaussian() if likelihood is None else likelihood
    resolved: Likelihood = resolve("likelihood", likelihood, LIKELIHOODS)
    if type(resolved) not in (Gaussian, Bernoulli, Categorical):
        raise ValueError(
            "`likelihood` must be Gaussian, Bernoulli or Categorical for a last layer in closed "
            f"form, got {shown(resolved)}: use fit."
        )
    return resolved


def _last_layer(
    module: nn.Module, x: InputsLike, select: Selection | None
) -> tuple[LastLayer, Inputs]:
    """Return the last layer of a copy of the module, in which it is trainable, and its inputs."""
    net = copied(module).eval()
    like = next((p for p in net.parameters() if p.is_floating_point()), None)
    if like is None:
        raise ValueError("`network` must end in a linear layer, got a module without parameters.")
    rows, _ = prepare_inputs(net, like, x, select)
    traits = traits_of(net, rows, select)
    if traits.draws_numbers:
        raise ValueError("`network` must not draw random numbers before its last layer.")
    name = last_layer_of(net, rows if traits.mixes_rows else rows_of(rows, slice(8)), select)
    layer: Any = net.get_submodule(name)
    for part, parameter in list(layer.named_parameters()):  # which are shared if they are frozen
        setattr(layer, part, nn.Parameter(parameter.detach().clone()))
    return LastLayer(net, layer, name, n_rows(rows) if traits.mixes_rows else ROWS_PER_CALL), rows


def _fit_regression(
    last: LastLayer,
    x: Inputs,
    y: Tensor,
    prior_scale: float | None,
    given: UnitPrior | None,
    noise: Tensor | None,
) -> _Result:
    check_size(last.n_features)
    statistics = Statistics.of(last.features(x), y)
    like, n_units = statistics.gram, y.shape[1]
    noise = None if noise is None else noise.to(like)
    notes: dict[str, Any] = {}
    if given is None:
        scale = None if prior_scale is None else like.new_full((n_units,), prior_scale)
        scale, noise = choose_scales(statistics, scale, noise)
        given = isotropic_prior(last, scale)
        notes["prior_scale"] = scale.tolist()
    loc, spread = given.loc.to(like), given.scale.to(like)
    if noise is None:
        ones = like.new_ones(1)
        whitened = [statistics.of_target(k).whitened(loc[k], spread[k]) for k in range(n_units)]
        noise = torch.cat([choose_scales(target, ones, None)[1] for target in whitened])
    done = condition_on(NormalBelief(loc, (spread**-2).diag_embed()), statistics, noise)
    notes |= {"noise_scale": noise.tolist(), "log_evidence": done.log_evidence}
    scales = tuple(noise.tolist())
    likelihood = Gaussian(scales[0] if len(set(scales)) == 1 else scales)
    return _Result(given.prior, likelihood, done.mean, done.covariance, "evidence", done.nll, notes)


def _fit_classes(
    last: LastLayer,
    x: Inputs,
    y: Tensor,
    likelihood: Likelihood,
    prior_scale: float | None,
    given: UnitPrior | None,
) -> _Result:
    n_units = last.layer.out_features
    is_joint = isinstance(likelihood, Categorical)
    check_size(last.n_features * (n_units if is_joint else 1))
    features = torch.cat(list(last.features(x)))
    if is_joint:
        labels = nn.functional.one_hot(y.to(features.device), n_units).to(features)
        blocks = [(slice(None), Classes(features, labels, has_reference=False))]
    else:
        columns = y.to(features)
        blocks = [
            (slice(k, k + 1), Classes(features, columns[:, k : k + 1], has_reference=True))
            for k in range(n_units)
        ]
    learn_scale = prior_scale is None and given is None
    start = isotropic_prior(last, features.new_full((n_units,), prior_scale or 1.0))
    prior = start if given is None else given
    loc, spread = prior.loc.to(features), prior.scale.to(features)
    fits = [
        fit_classes(data, loc[part], spread[part].flatten() ** -2, learn_scale=learn_scale)
        for part, data in blocks
    ]
    notes: dict[str, Any] = {"log_evidence": sum(fit.bound for fit in fits)}
    if given is None:
        scales = torch.stack([fit.scale for fit in fits])
        notes["prior_scale"] = scales.tolist()
        prior = isotropic_prior(last, scales.expand(n_units))
    mean = torch.stack([fit.mean.flatten() for fit in fits])
    covariance = torch.stack([fit.covariance for fit in fits])
    if is_joint:
        mean, covariance = last.in_flat_order(mean, covariance)
    return _Result(
        prior.prior,
        likelihood,
        mean,
        covariance,
        "tilted_bound",
        sum(fit.nll for fit in fits),
        notes,
    )


def check_size(n_weights: int) -> None:
    """Raise a ValueError if a dense covariance of so many weights is too large."""
    if n_weights > MAX_WEIGHTS:
        raise ValueError(
            f"`network` must have a last layer with a dense covariance of at most {MAX_WEIGHTS} "
            f"weights, got {n_weights}: use fit with priors on the last layer only."
        )


def _noise_of(
    likelihood: Gaussian, noise_scale: float | Sequence[float] | None, n_units: int
) -> Tensor | None:
    """Return the noise scale of each unit if it is given."""
    given = likelihood.scale if noise_scale is None else noise_scale
    if given is None:
        return None
    values = list(given) if isinstance(given, Sequence | np.ndarray | Tensor) else [given] * n_units
    for value in values:
        check_positive("noise_scale", value)
    if len(values) != n_units:
        raise ValueError(
            f"`noise_scale` must be a number or one for each of {n_units} columns of y, got "
            f"{len(values)}."
        )
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def _history(nelbo: float, nll: float, n_rows: int) -> History:
    """Return the history of a fit in one step."""
    one = np.ones(1)
    return History(
        nelbo * one, nll * one, (nelbo - nll) * one, np.zeros(1, int), np.full(1, n_rows)
    )
