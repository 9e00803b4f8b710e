"""Plots of a DataTree by arviz-plots, with the same result in versions 0.8 and 1.x."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .._core.arrays import as_count, check_number
from ..diagnostics.importance import loo
from .inputs import check_one_column, check_tree, check_type

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from ..comparisons import SBC


def plot_ppc(tree: xarray.DataTree, *, n_draws: int = 50) -> Axes:
    """Plot the distribution of y and of data sets drawn from the posterior predictive.

    Parameters
    ----------
    tree : DataTree
        From `Posterior.to_arviz` or `from_pyro`.
    n_draws : int
        Number of data sets to draw.

    Returns
    -------
    Axes
        Axes of a new figure.
    """
    check_tree(tree, ["posterior_predictive", "observed_data"])
    n_draws = as_count("n_draws", n_draws)
    return _plot("plot_ppc_dist", tree, num_samples=n_draws)


def plot_loo_pit(tree: xarray.DataTree, *, ax: Axes | None = None, level: float = 0.94) -> Axes:
    """Plot the leave-one-out probability integral transform (LOO-PIT) of y.

    The line is the difference between its cumulative distribution function and that of a uniform
    distribution. If predictions are calibrated, the whole line is inside the band with probability
    `level`. Only for y with one column.
    """
    check_tree(tree, ["posterior_predictive", "observed_data", "log_likelihood"])
    check_number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"`level` must be a probability in (0, 1), got {level}.")
    check_one_column(tree)
    return _plot("plot_loo_pit", tree, ax, tree["observed_data"].to_dataset(), prob=level)


def plot_khat(tree: xarray.DataTree, *, ax: Axes | None = None) -> Axes:
    """Plot k-hat of each row from PSIS-LOO, corrected for the approximate posterior.

    Leave-one-out scores are reliable where k-hat is below the dotted line.
    """
    check_tree(tree, ["log_likelihood"])
    estimate = loo(tree)
    ax = _plot("plot_khat", estimate, ax, estimate.pareto_k.to_dataset(name="pareto_k"))
    ax.axhline(estimate.good_k, color="black", lw=0.8, ls=":")
    return ax


def plot_forest(tree: xarray.DataTree, var_names: list[str], **options: Any) -> Any:
    """Plot credible intervals of variables of the posterior, for each restart.

    Parameters
    ----------
    tree : DataTree
    var_names : list of str
        Functions of the weights, such as ``["mean"]`` or ``["noise_scale"]``. Individual
        weights are not comparable between restarts, because hidden units can be permuted.
    **options
        Options of ``arviz_plots.plot_forest``, such as ``coords={"obs": [0, 1, 2]}``.

    Returns
    -------
    list of Axes
        Axes of a new figure.
    """
    check_tree(tree, ["posterior"])
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    known = list(tree["posterior"].data_vars)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"`var_names` must be among {', '.join(map(str, known))}, got "
            f"{repr(unknown[0]) if unknown else 'none'}."
        )
    return _plot("plot_forest", tree, var_names=var_names, **options)


def plot_sbc(sbc: SBC) -> Any:
    """Plot the deviation of the ranks of simulation-based calibration from uniform.

    Returns
    -------
    list of Axes
        Axes of a new figure, one per quantity.
    """
    from ..comparisons import SBC

    check_type("sbc", sbc, SBC, "it is what pyrobbb.comparisons.sbc returns")
    return _plot("plot_ecdf_pit", sbc.tree)


def _plot(
    name: str,
    data: Any,
    ax: Axes | None = None,
    facets: xarray.Dataset | None = None,
    *,
    prob: float | None = None,
    **options: Any,
) -> Any:
    """Call a function of arviz-plots and return its axes.

    Parameters
    ----------
    name : str
        Name of the function.
    data : DataTree or ELPDData
    ax : Axes, optional
        Axes to plot on. None: a new figure.
    facets : Dataset, optional
        Data set of the single variable that is plotted on `ax`.
    prob : float, optional
        Probability of the envelope. The name of this option depends on ArviZ's version.
    **options
        Options of the function.

    Returns
    -------
    Axes or list of Axes
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
    collection = function(data, backend="matplotlib", **options)
    if ax is not None:
        return ax
    axes = collection.viz["figure"].item().axes
    return axes if len(axes) > 1 else axes[0]
