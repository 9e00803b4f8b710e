"""Conversion of a posterior over a network's weights to an xarray DataTree for ArviZ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .._core.arrays import ArrayLike, as_count
from .._core.random_state import as_seed
from .._core.signatures import suggests_arguments
from .._core.trees import Inputs, InputsLike, labelled_arrays, n_rows, structured
from ..fitted import FittedChain, HasChains
from ..fitted.draws import prior_source_of, sources_of
from ..model.network import BayesianNetwork
from ..prediction.sampling import Draws
from ..prediction.working_memory import bytes_per_row
from .datatree import Variables, build_tree, split_chains
from .labels import column_labels, data_dims, n_columns, site_coords, site_dims
from .posterior_groups import (
    Function,
    LatentVariables,
    compute_outputs,
    drop_single_column,
    sample_stats,
)

if TYPE_CHECKING:
    import xarray


@suggests_arguments()
def to_arviz(
    posterior: HasChains,
    x: InputsLike,
    y: ArrayLike,
    *,
    x_new: InputsLike | None = None,
    n_draws: int = 500,
    seed: int | None = None,
    sites: Sequence[str] | None = None,
    functions: Mapping[str, Function] | None = None,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
    max_memory: int = 2**31,
) -> xarray.DataTree:
    """Convert draws, predictions, log-densities and data to a DataTree.

    Parameters
    ----------
    posterior : Posterior
    x, y : array-like of shape (n, ...); x also nested tuples and mappings of them
        All the data that the network was fitted to.
    x_new : array-like of shape (m, ...), optional
        Further inputs to predict at.
    n_draws : int
        Draws from each chain of the posterior, and from the prior. A DataTree has equally many of
        all chains, even of those that are weighted: their weights are in its attributes.
    seed : int, optional
        Seed of all draws.
    sites : sequence of str, optional
        The latent sites to keep. None: all. Empty: none, since outputs are more informative than
        the weights of a large network.
    functions : mapping of str to callable, optional
        Further variables of the groups ``posterior`` and ``prior``: functions of the draws, a
        dict of site to Tensor of shape (m, *site), that return a Tensor of shape (m, ...).
    feature_names, class_names, target_names : sequence of str, optional
        Labels of the columns of x, of the classes, and of the columns of y. None: the column names
        of a data frame.
    max_memory : int
        Bound on the bytes of the tree.

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
          with a `sample_weight`, which the posterior does not keep, ``logq`` alone;
        - ``observed_data``, ``constant_data``: ``y`` and ``x``, or each of several arrays, such as
          ``x.mask`` or ``x.0``;
        - ``predictions``, ``predictions_constant_data``: ``mean`` or ``probs``, ``y`` and ``x`` at
          `x_new`.

        Data with a single column, of shape (n, 1), become one-dimensional.

    Raises
    ------
    TypeError, ValueError
        If a site is unknown, labels do not match the data, or the tree would exceed `max_memory`.
    """
    n_draws = as_count("n_draws", n_draws)
    max_memory = as_count("max_memory", max_memory)
    seed = as_seed(seed)
    chains = posterior.chains
    network, example, n_chains = chains[0].network, chains[0].example, len(chains)
    rows, targets = network.prepare(x, y)
    new_rows = None if x_new is None else network.prepare_inputs(x_new)
    equally = np.ones(n_chains)  # a DataTree needs equally many draws of all chains
    sources = sources_of(chains, n_chains * n_draws, seed, equally)
    prior_sources = [prior_source_of(chains, n_draws, seed)]
    variables = _latent_variables(sites, functions or {}, next(sources[0].draws(example)))
    _check_memory(
        network,
        variables.sites,
        rows,
        n_new=0 if new_rows is None else n_rows(new_rows),
        n_draws=n_chains * n_draws,
        n_prior=n_draws,
        max_memory=max_memory,
    )

    outputs = compute_outputs(sources, rows, targets, seed)
    prior_outputs = compute_outputs(prior_sources, rows, None, seed)
    has_joint = not any(chain.settings.is_weighted for chain in chains)
    by_chain = partial(split_chains, num_chains=n_chains)
    groups: dict[str, Variables] = {
        "posterior": by_chain(variables.draw(sources, example) | outputs.expected),
        "prior": split_chains(variables.draw(prior_sources, example) | prior_outputs.expected, 1),
        "posterior_predictive": by_chain({"y": outputs.y}),
        "prior_predictive": split_chains({"y": prior_outputs.y}, 1),
        "log_likelihood": by_chain({"y": outputs.log_likelihood}),
        "sample_stats": by_chain(
            sample_stats(sources, example, outputs.log_likelihood if has_joint else None)
        ),
        "observed_data": {"y": drop_single_column(targets)},
        "constant_data": _variables(rows),
    }
    if new_rows is not None:
        new_outputs = compute_outputs(sources, new_rows, None, seed)
        groups["predictions"] = by_chain({**new_outputs.expected, "y": new_outputs.y})
        groups["predictions_constant_data"] = _variables(new_rows)

    dims, labels = _labelled_inputs(x, rows, feature_names)
    features = labels.get("feature")
    names = column_labels("target_names", target_names, y, n_columns(targets))
    classes = column_labels("class_names", class_names, None, outputs.n_classes)
    labels |= {"target": names, "class": classes}
    coords = {dim: values for dim, values in labels.items() if values is not None}
    dims["y"] = data_dims(targets, "target")
    for name in outputs.expected:
        dims[name] = dims["y"] if outputs.n_classes is None else ["obs", "class"]
    return build_tree(
        groups,
        dims={**site_dims(network), **dims},
        coords={**site_coords(network, features, classes or names), **coords},
        pred_dims={name: ["obs_new", *columns] for name, (_, *columns) in dims.items()},
        pred_coords=coords,
        attrs=_attrs(chains, seed),
    )


def _variables(x: Inputs) -> Variables:
    """Return the variables for inputs."""
    return {label: drop_single_column(array) for label, array in labelled_arrays("x", x).items()}


def _labelled_inputs(
    x: InputsLike, rows: Inputs, feature_names: Sequence[str] | None
) -> tuple[dict[str, list[str]], dict[str, list[str] | None]]:
    """Return the dimensions of the variables for inputs, and the labels of these dimensions."""
    given, arrays = labelled_arrays("x", structured("x", x)), labelled_arrays("x", rows)
    if feature_names is not None and "x" not in arrays:
        raise ValueError(
            "`feature_names` needs x as one array: pass data frames, whose columns have names."
        )
    dims, labels = {}, {}
    for label, array in arrays.items():
        dim = "feature" if label == "x" else f"{label}_feature"
        dims[label] = data_dims(array, dim)
        labels[dim] = column_labels("feature_names", feature_names, given[label], n_columns(array))
    return dims, labels


def _latent_variables(
    sites: Sequence[str] | None, functions: Mapping[str, Function], draws: Draws
) -> LatentVariables:
    """Check `sites` and `functions` with some draws, and return the variables of the tree."""
    if isinstance(sites, str):
        raise TypeError(f"`sites` must be a list of names, got the string {sites!r}.")
    unknown = sorted(set(sites or ()) - set(draws))
    if unknown:
        raise ValueError(f"`sites` must be among {', '.join(draws)}, got {unknown}.")
    taken = {*draws, "mean", "probs"} & set(functions)
    if taken:
        raise ValueError(
            f"`functions` must not have names of other variables, got {sorted(taken)}."
        )
    for name, function in functions.items():
        value, n = function(draws), len(next(iter(draws.values())))
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != n:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value)
            raise ValueError(
                f"`functions`: {name!r} must return a tensor with a row for each draw, but for {n} "
                f"draws it returned {got}."
            )
    return LatentVariables([name for name in draws if sites is None or name in sites], functions)


def _check_memory(
    network: BayesianNetwork,
    sites: Sequence[str],
    rows: Inputs,
    *,
    n_new: int,
    n_draws: int,
    n_prior: int,
    max_memory: int,
) -> None:
    """Raise if the tree would exceed `max_memory`."""
    sizes = {name: p.numel() * p.element_size() for name, p in network.bayesian_parameters()}
    _, per_row = bytes_per_row(network.net, network.example_of(rows), network.select)
    weight_bytes = sum(sizes.get(name, 0) for name in sites) * (n_draws + n_prior)
    # An expected value and a draw of y for each row, and for the data a log-likelihood in float64.
    output_bytes = 2 * per_row * ((n_rows(rows) + n_new) * n_draws + n_rows(rows) * n_prior)
    output_bytes += 8 * n_rows(rows) * n_draws
    if weight_bytes + output_bytes > max_memory:
        raise ValueError(
            f"`max_memory` is {max_memory / 2**30:.1f} GiB, but the tree would hold "
            f"{weight_bytes / 2**30:.1f} GiB of weights and {output_bytes / 2**30:.1f} GiB of "
            "outputs: keep fewer `sites` ([] for the outputs only) or `functions` of them, reduce "
            "`n_draws` or the number of rows, or raise `max_memory`."
        )


def _attrs(chains: Sequence[FittedChain], seed: int) -> dict[str, Any]:
    """Return the attributes of the tree: settings and results of the fits, lists if they differ."""
    names = dict.fromkeys(name for chain in chains for name in chain.settings)
    settings = {name: [chain.settings.get(name) for chain in chains] for name in names}
    nelbo = [float(c.history.per_epoch().nelbo[-1]) for c in chains if len(c.history.nelbo)]
    return {
        **{name: _one_or_all(values) for name, values in settings.items()},
        "inference_method": "variational",
        "guide": _one_or_all([type(chain.guide).__name__ for chain in chains]),
        "steps": _one_or_all([len(chain.history.nelbo) for chain in chains]),
        "nelbo": _one_or_all(nelbo) if nelbo else None,
        "draws_seed": seed,
    }


def _one_or_all(values: list[Any]) -> Any:
    """Return the value that all chains have, or the values of the chains."""
    return values[0] if all(value == values[0] for value in values) else values
