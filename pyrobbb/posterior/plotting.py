"""PosteriorPlots: the plots of `pyrobbb.plots` as methods of a posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core.arrays import ArrayLike
from .._core.trees import InputsLike
from ..prediction.base import plot_function

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PosteriorPlots:
    """The plots of a posterior, as methods: ``ax = posterior.plot.history()``.

    - ``history(chain=None)``: the objective of each epoch, of one of several chains.
    - ``snr()``: the signal-to-noise ratio of the weights.
    - ``weights(name)``: the weights of a parameter, such as ``"0.weight"``, beside their prior.
    - ``forest(x, y, var_names)``: intervals of variables, such as ``"noise_scale"``, by chain.
    - ``ppc(x, y)``: y beside data sets drawn from the posterior predictive distribution.
    - ``loo_pit(x, y)``: the leave-one-out probability integral transform of y.
    - ``khat(x, y)``: k-hat of each row, from leave-one-out cross-validation.

    Each method calls the function of `pyrobbb.plots` with its name, such as
    `pyrobbb.plots.plot_snr`, passes further options such as ``ax`` on to it, and returns what it
    returns. Those with x and y draw from the posterior; ``seed`` makes the draws repeatable.
    """

    def __init__(self, posterior: Any) -> None:
        self._posterior = posterior

    def history(self, chain: int | None = None, **options: Any) -> Axes:
        """Plot the objective of each epoch, of one of several chains."""
        posterior = self._posterior
        history = posterior.history if chain is None else posterior.chains[chain].history
        axes: Axes = plot_function("plot_history")(history, **options)
        return axes

    def snr(self, **options: Any) -> Axes:
        """Plot a histogram of the signal-to-noise ratio of the weights."""
        axes: Axes = plot_function("plot_snr")(self._posterior, **options)
        return axes

    def weights(self, name: str, **options: Any) -> Axes:
        """Plot the posterior of the weights of one parameter against their prior."""
        axes: Axes = plot_function("plot_weights")(self._posterior, name, **options)
        return axes

    def forest(
        self,
        x: InputsLike,
        y: ArrayLike,
        var_names: str | Sequence[str],
        *,
        seed: int | None = None,
        **options: Any,
    ) -> Any:
        """Plot credible intervals of variables of the posterior, for each chain."""
        tree = self._posterior.to_arviz(x, y, seed=seed)
        return plot_function("plot_forest")(tree, var_names, **options)

    def ppc(self, x: InputsLike, y: ArrayLike, *, seed: int | None = None, **options: Any) -> Axes:
        """Plot the distribution of y and of data sets drawn from the posterior predictive."""
        return self._of_tree("plot_ppc", x, y, seed, options)

    def loo_pit(
        self, x: InputsLike, y: ArrayLike, *, seed: int | None = None, **options: Any
    ) -> Axes:
        """Plot the leave-one-out probability integral transform of y."""
        return self._of_tree("plot_loo_pit", x, y, seed, options)

    def khat(self, x: InputsLike, y: ArrayLike, *, seed: int | None = None, **options: Any) -> Axes:
        """Plot k-hat of each row from leave-one-out cross-validation by importance sampling."""
        return self._of_tree("plot_khat", x, y, seed, options)

    def _of_tree(
        self, name: str, x: InputsLike, y: ArrayLike, seed: int | None, options: dict[str, Any]
    ) -> Axes:
        tree = self._posterior.to_arviz(x, y, seed=seed, sites=[])  # weights are not needed
        axes: Axes = plot_function(name)(tree, **options)
        return axes
