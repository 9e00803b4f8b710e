"""A posterior as an xarray DataTree for ArviZ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, check_count, to_numpy
from .._core.random_state import as_seed, seeded
from ..fitted import HasChains
from ..fitted.draws import prior_source_of, sources_of
from ..likelihoods import base_of
from ..model.network import BayesianNetwork
from ..prediction.predictions import CLASSES
from ..prediction.sampling import (
    WORKING_MEMORY,
    DrawnDistributions,
    Draws,
    FixedDraws,
    Source,
    join,
    log_densities,
)
from .datatree import build_tree

if TYPE_CHECKING:
    import xarray


Function = Callable[[Draws], Tensor]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def to_arviz(
    posterior: HasChains,
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_new: ArrayLike | None = None,
    n_draws: int = 500,
    seed: int | None = None,
    sites: Sequence[str] | None = None,
    functions: Mapping[str, Function] | None = None,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
    max_memory: int = 2**31,
) -> xarray.DataTree:
    """Give draws, predictions, densities and data as ArviZ reads them.

    Parameters
    ----------
    posterior : Posterior
    x, y : array-like of shape (n, ...)
        All the data that the network was fitted to.
    x_new : array-like of shape (m, ...), optional
        Other inputs, to be predicted.
    n_draws : int
        Draws from each chain of the posterior, and from the prior.
    seed : int, optional
        Makes them repeatable.
    sites : sequence of str, optional
        The latent sites to keep. None: all. An empty one keeps none: the outputs tell more than
        the weights of a large network.
    functions : mapping of str to callable, optional
        Further variables of the groups ``posterior`` and ``prior``: functions of the draws, a
        dict of site to Tensor of shape (m, *site), that give a Tensor of shape (m, ...).
    feature_names, class_names, target_names : sequence of str, optional
        Labels of the columns of x, of the classes, of the columns of y. None: those of a data
        frame.
    max_memory : int
        Bound on the bytes that the tree may take.

    Returns
    -------
    DataTree
        With the dimensions ``chain`` (independent fits) and ``draw``, and the groups

        - ``posterior``, ``prior``: latent sites, `functions`, and the mean of y (``mean``) or the
          probability of each class (``probs``) at each row, without noise;
        - ``posterior_predictive``, ``prior_predictive``: ``y``, noise included;
        - ``log_likelihood``: of each row, in nats;
        - ``sample_stats``: ``lp``, the log joint density of weights and data; ``logq``, that of the
          guide; ``log_weight``, their difference. In nats, of the constrained sites; after a fit
          with a `sample_weight`, which is not known here, ``logq`` alone;
        - ``observed_data``, ``constant_data``: ``y`` and ``x``;
        - ``predictions``, ``predictions_constant_data``: ``mean`` or ``probs``, ``y`` and ``x`` at
          `x_new`.

        A single column, of shape (n, 1), loses its second dimension.

    Raises
    ------
    ValueError
        If a site is not known, labels do not fit, or the tree would exceed `max_memory`.
    """
    check_count("n_draws", n_draws)
    check_count("max_memory", max_memory)
    seed = as_seed(seed)
    network, functions = posterior.chains[0].network, dict(functions or {})
    rows, targets = network.prepare(x, y)
    new_rows = None if x_new is None else network.prepare_inputs(x_new)
    n_chains = len(posterior.chains)
    sources = sources_of(posterior.chains, n_chains * n_draws, seed)
    prior = [prior_source_of(posterior.chains, n_draws, seed)]
    names = _wanted(sites, functions, next(sources[0].draws(posterior.chains[0].example)))
    n_outputs = [len(rows), 0 if new_rows is None else len(new_rows)]
    _check_size(network, names, rows, n_outputs, n_chains * n_draws, n_draws, max_memory)

    def by_chain(variables: Mapping[str, Tensor], n: int = n_chains) -> dict[str, np.ndarray]:
        return {k: to_numpy(v.reshape((n, -1, *v.shape[1:]))) for k, v in variables.items()}

    def variables(of: Sequence[Source | FixedDraws]) -> Draws:
        blocks = chain.from_iterable(source.draws(posterior.chains[0].example) for source in of)
        pieces = (_variables(draws, names, functions) for draws in blocks)
        return join(pieces, sum(source.n_draws for source in of))

    latents, prior_latents = variables(sources), variables(prior)
    log_prior, log_q = log_densities(sources, posterior.chains[0].example)
    expected, predicted, log_likelihood = _outputs(sources, rows, targets, seed)
    assert log_likelihood is not None
    prior_expected, prior_predicted, _ = _outputs(prior, rows, None, seed)
    log_joint = log_prior + log_likelihood.sum(1)
    stats = {"lp": log_joint, "logq": log_q, "log_weight": log_joint - log_q}
    if posterior.chains[0].settings.get("is_weighted"):
        stats = {"logq": log_q}
    groups = {
        "posterior": by_chain({**latents, **expected}),
        "prior": by_chain({**prior_latents, **prior_expected}, 1),
        "posterior_predictive": by_chain({"y": predicted}),
        "prior_predictive": by_chain({"y": prior_predicted}, 1),
        "log_likelihood": by_chain({"y": log_likelihood}),
        "sample_stats": by_chain(stats),
        "observed_data": {"y": to_numpy(_flat(targets))},
        "constant_data": {"x": to_numpy(_flat(rows))},
    }
    if new_rows is not None:
        new_expected, new_predicted, _ = _outputs(sources, new_rows, None, seed)
        groups["predictions"] = by_chain({**new_expected, "y": new_predicted})
        groups["predictions_constant_data"] = {"x": to_numpy(_flat(new_rows))}

    n_classes = expected["probs"].shape[-1] if _is_categorical(expected, predicted) else None
    columns = {
        "feature": _labels("feature_names", feature_names, x, _n_columns(rows)),
        "target": _labels("target_names", target_names, y, _n_columns(targets)),
        "class": _labels("class_names", class_names, None, n_classes),
    }
    dims = {"x": _dims(rows, "feature"), "y": _dims(targets, "target")}
    for name in expected:
        dims[name] = dims["y"] if n_classes is None else ["obs", "class"]
    labels = {dim: own for dim, own in columns.items() if own is not None}
    site_dims, site_coords = _dims_of_sites(network, labels)
    return build_tree(
        groups,
        dims={**site_dims, **dims},
        coords={**site_coords, **labels},
        pred_dims={name: ["obs_new", *own[1:]] for name, own in dims.items()},
        pred_coords=labels,
        attrs=_attrs(posterior, seed),
    )


def _wanted(
    sites: Sequence[str] | None, functions: Mapping[str, Function], draws: Draws
) -> list[str]:
    """Give the names of the sites to keep, checked."""
    if isinstance(sites, str):
        raise TypeError(f"`sites` must be a list of names, got the text {sites!r}.")
    unknown = sorted(set(sites or ()) - set(draws))
    if unknown:
        raise ValueError(f"`sites`: no site {unknown}; there are {', '.join(draws)}.")
    taken = {*draws, "mean", "probs"} & set(functions)
    if taken:
        raise ValueError(f"`functions`: {sorted(taken)} is the name of another variable.")
    for name, function in functions.items():
        value, n = function(draws), len(next(iter(draws.values())))
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != n:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value)
            raise ValueError(
                f"`functions`: {name!r} must give a tensor with a row for each draw, but for {n} "
                f"draws it gave {got}."
            )
    return [name for name in draws if sites is None or name in sites]


def _check_size(
    network: BayesianNetwork,
    names: list[str],
    rows: Tensor,
    n_outputs: list[int],
    n_draws: int,
    n_prior: int,
    max_memory: int,
) -> None:
    """Raise before memory is exhausted: with what takes it, and what to do."""
    sizes = {name: p.numel() * p.element_size() for name, p in network.bayesian_parameters()}
    n_weights = sum(sizes.get(name, 0) for name in names)
    with torch.no_grad():
        output = network.net(rows[:1])
    n_row = output.numel() * output.element_size()
    sites = n_weights * (n_draws + n_prior)
    outputs = 2 * n_row * (sum(n_outputs) * n_draws + n_outputs[0] * n_prior)
    outputs += 8 * n_outputs[0] * n_draws
    if sites + outputs > max_memory:
        parts = f"{sites / 2**30:.1f} GiB of weights and {outputs / 2**30:.1f} GiB of outputs"
        raise ValueError(
            f"`max_memory` is {max_memory / 2**30:.1f} GiB, but the tree would hold {parts}: keep "
            "fewer `sites` ([] for the outputs only) or `functions` of them, fewer `n_draws` or "
            "rows, or raise `max_memory`."
        )


def _variables(draws: Draws, names: list[str], functions: Mapping[str, Function]) -> Draws:
    """Give the variables that are kept of some draws."""
    own = {name: function(draws) for name, function in functions.items()}
    return {name: draws[name] for name in names} | own


def _outputs(
    sources: Sequence[Source | FixedDraws], rows: Tensor, targets: Tensor | None, seed: int
) -> tuple[Draws, Tensor, Tensor | None]:
    """Give what is expected of y, draws of y, and log-likelihoods, shape (n_draws, n, ...)."""
    expected: dict[str, list[Tensor]] = defaultdict(list)
    predicted, log_likelihood, start = [], [], 0
    distributions = DrawnDistributions(sources, rows, max_memory=WORKING_MEMORY)
    with seeded(seed), torch.no_grad():
        for distribution in distributions:
            base = base_of(distribution)
            has_classes = isinstance(base, CLASSES)
            expected["probs" if has_classes else "mean"].append(
                base.probs if has_classes else distribution.mean
            )
            predicted.append(distribution.sample())
            if targets is not None:
                own = targets[start : (start := start + distribution.batch_shape[1])]
                log_likelihood.append(distribution.log_prob(own).double())
    return (
        {name: _flat(torch.cat(parts, 1), 1) for name, parts in expected.items()},
        _flat(torch.cat(predicted, 1), 1),
        torch.cat(log_likelihood, 1) if log_likelihood else None,
    )


def _flat(values: Tensor, n_lead: int = 0) -> Tensor:
    """Drop the second dimension of a single column."""
    is_column = values.dim() == n_lead + 2 and values.shape[-1] == 1
    return values[..., 0] if is_column else values


def _is_categorical(expected: Draws, predicted: Tensor) -> bool:
    return "probs" in expected and expected["probs"].dim() > predicted.dim()


def _n_columns(values: Tensor) -> int | None:
    return values.shape[1] if _flat(values).dim() == 2 else None


def _dims(values: Tensor, columns: str) -> list[str]:
    return ["obs"] if _n_columns(values) is None else ["obs", columns]


def _labels(
    argument: str, given: Sequence[str] | None, data: ArrayLike, n: int | None
) -> list[str] | None:
    """Give the labels of columns: those given, or a data frame's."""
    if given is None:
        columns = getattr(data, "columns", None)
        return None if columns is None or n is None else [str(column) for column in columns]
    if n is None or len(given) != n:
        raise ValueError(f"`{argument}` must name {n or 'no'} columns, got {len(given)} names.")
    return [str(name) for name in given]


def _dims_of_sites(
    network: BayesianNetwork, labels: Mapping[str, list[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Name the dimensions of weights, and label the inputs of the first and last layer."""
    dims, coords = {}, {}
    layers = {n: m for n, m in network.net.named_modules() if isinstance(m, LAYERS)}
    for name, parameter in network.bayesian_parameters():
        layer, _, leaf = name.rpartition(".")
        if layer in layers and leaf in ("weight", "bias"):
            kernel = [f"{name}_k{i}" for i in range(parameter.dim() - 2)]
            dims[name] = [f"{name}_out", f"{name}_in", *kernel][: parameter.dim()]
        else:
            dims[name] = [f"{name}_dim_{i}" for i in range(parameter.dim())]
    if layers:
        (first, *_), (*_, last) = layers, layers
        outputs = labels.get("class", labels.get("target"))
        for dim, names in (
            (f"{first}.weight_in", labels.get("feature")),
            (f"{last}.weight_out", outputs),
            (f"{last}.bias_out", outputs),
        ):
            site = dim.rpartition("_")[0]
            if names is not None and site in dims:
                size = dict(network.bayesian_parameters())[site].shape[dims[site].index(dim)]
                if size == len(names):
                    coords[dim] = names
    return dims, coords


def _attrs(posterior: HasChains, seed: int) -> dict[str, Any]:
    fits = posterior.chains
    nelbo = [float(own.history.per_epoch().nelbo[-1]) for own in fits if len(own.history.nelbo)]
    seeds = [own.settings.get("seed") for own in fits]
    return {
        **posterior.chains[0].settings,
        "inference_method": "variational",
        "guide": type(posterior.chains[0].guide).__name__,
        "steps": len(posterior.chains[0].history.nelbo),
        "seed": seeds if len(seeds) > 1 else seeds[0],
        "nelbo": nelbo if len(nelbo) > 1 else nelbo[0] if nelbo else None,
        "draws_seed": seed,
    }
