"""Pictures of a DataTree by ArviZ, of the 0.8 and of the 1.x generation alike."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..diagnostics.importance import loo

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from ..comparisons.sbc import SBC


def plot_ppc(tree: xarray.DataTree, *, n_draws: int = 50) -> Axes:
    """Draw the distribution of y, and of data sets that the posterior predicts, in a new figure.

    Parameters
    ----------
    tree : DataTree
        As `Posterior.to_arviz` and `from_pyro` give it.
    n_draws : int
        Data sets.
    """
    return _draw("plot_ppc_dist", tree, num_samples=n_draws)


def plot_loo_pit(tree: xarray.DataTree, *, ax: Axes | None = None, level: float = 0.94) -> Axes:
    """Draw how far the leave-one-out probability transforms of y are from uniform.

    Their distribution function less that of a uniform distribution, with the band that holds the
    whole of it with the probability `level` if predictions are calibrated. For y of one column.
    """
    return _draw("plot_loo_pit", tree, ax, tree["observed_data"].to_dataset(), prob=level)


def plot_khat(tree: xarray.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the k-hat of each row from PSIS-LOO, corrected for the approximate posterior.

    The line is the bound up to which leave-one-out scores can be relied on.
    """
    estimate = loo(tree)
    ax = _draw("plot_khat", estimate, ax, estimate.pareto_k.to_dataset(name="pareto_k"))
    ax.axhline(estimate.good_k, color="black", lw=0.8, ls=":")
    return ax


def plot_forest(tree: xarray.DataTree, var_names: list[str], **options: Any) -> Any:
    """Draw intervals of variables of the posterior, each restart apart, in a new figure.

    Parameters
    ----------
    tree : DataTree
    var_names : list of str
        Functions of the weights, such as ``["mean"]`` or ``["noise_scale"]``: weights may be
        permuted between restarts.
    **options
        Of ``arviz_plots.plot_forest``, such as ``coords={"obs": [0, 1, 2]}``.

    Returns
    -------
    list of Axes
    """
    return _draw("plot_forest", tree, var_names=var_names, **options)


def plot_sbc(sbc: SBC) -> Any:
    """Draw how far the ranks of simulation-based calibration are from uniform, in a new figure.

    Returns
    -------
    list of Axes, one for each quantity
    """
    return _draw("plot_ecdf_pit", sbc.tree)


def _draw(
    name: str,
    what: Any,
    ax: Axes | None = None,
    facets: xarray.Dataset | None = None,
    *,
    prob: float | None = None,
    **options: Any,
) -> Any:
    """Call a function of arviz-plots; give its axes, or the one of several.

    Parameters
    ----------
    name : str
    what : DataTree or ELPDData
    ax : Axes, optional
        Where to draw.
    facets : Dataset, optional
        Its single variable is drawn on `ax`.
    prob : float, optional
        Of the envelope, by the name that the function has for it.
    """
    import arviz_plots
    import xarray

    function = getattr(arviz_plots, name)
    if prob is not None:
        parameters = inspect.signature(function).parameters
        options[next(p for p in ("envelope_prob", "ci_prob") if p in parameters)] = prob
    if ax is not None:
        viz = xarray.Dataset({"figure": ax.figure, "plot": ax, "row_index": 0, "col_index": 0})
        options["plot_collection"] = arviz_plots.PlotCollection(
            facets, xarray.DataTree(viz), backend="matplotlib"
        )
    collection = function(what, backend="matplotlib", **options)
    if ax is not None:
        return ax
    axes = collection.viz["figure"].item().axes
    return axes if len(axes) > 1 else axes[0]
