"""BBBRegressor: regression by a Bayesian neural network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from sklearn.base import RegressorMixin

from .. import likelihoods, priors
from .._core.arrays import as_count
from .._core.signatures import suggests_arguments
from ..model.mlp import Activation
from ..posterior.posterior import Posterior
from ..prediction import Calibration, RegressionPrediction, Standardizer
from ..training.config import EngineName
from ..training.placement import Device
from . import exporting, likelihood_choice, storage
from .base import BBBEstimator
from .conformal import calibrate_intervals, fit_and_calibrate, n_calibration_rows
from .inputs import n_inputs, validate_rows
from .loss_curves import loss_curves
from .networks import likelihood_name, resolve_likelihood
from .parameters import Columns, RandomStateLike, draw_seed
from .preparation import Rows, as_columns, drop_zero_weights, numeric_array, prepare
from .search import stack_first_fit
from .stages import Stages, planned_steps, spread_kl_weights
from .stored_parameters import calibration_from_json
from .target_units import in_target_units, is_log, target_scaling


class BBBRegressor(RegressorMixin, BBBEstimator):
    """Regression by a Bayesian neural network, for scikit-learn.

    The defaults are meant to need no tuning on tables of 100 to 100,000 rows.

    Parameters
    ----------
    hidden : int, sequence of int or "auto"
        Units of the hidden layers; empty for a linear model, a number for one layer. ``"auto"``:
        one layer of 50, of 10 for fewer than 60 rows, and from 5,000 rows on two layers of 50.
    likelihood : str or callable
        ``"gaussian"``: constant, learned noise scale; ``"heteroscedastic"``: noise scale that
        depends on the inputs; ``"student_t"``: heavy-tailed noise; ``"lognormal"``: positive y with
        Gaussian noise on the log scale; ``"poisson"`` and ``"negative_binomial"``: counts;
        ``"auto"``: the simplest that predicts held-out rows as well as the best, of those that suit
        y; see ``search_``. Or one of `pyrobbb.likelihoods`, or any callable as for
        `BayesianNetwork`, for targets in the network's units: real ones are standardised (for
        `LogNormal`, log y is), other positive ones are divided by their standard deviation, and
        those of a bounded or discrete likelihood, such as counts, are not scaled.
    activation : str, as for `pyrobbb.mlp`
    ard : bool or "auto"
        Automatic relevance determination: learned scales of the inputs; see `InputScale`.
        ``"auto"``: with 60 to 128 rows.
    prior : str or callable
        ``"mixture"``, ``"normal"``, ``"fan_in"``, ``"laplace"``, ``"student_t"``; `pyrobbb.priors`.
    epochs : int, optional
        Passes over the data. None: as many as 40,000 steps take, but between 20 and 10,000.
    batch_size : int, rows per step
    lr : float, the peak learning rate
    restarts : int or "auto"
        Independent fits, over which predictions average. ``"auto"``: 4, with 60 to 128 rows 8.
    n_draws : int, draws of the weights per prediction
    calibration : float
        Fraction of the rows, in [0, 1), held out for the split conformal calibration of intervals
        and quantiles; 9 to 1,000 rows. A second fit to all rows then continues from the first,
        with a quarter of the epochs and of `lr`. The fewer rows, the nearer the intervals stay to
        those of the mixture; with 0, or by default with fewer than 36 rows, they are equal.
    kl_weight : float or "auto"
        Factor on the KL divergence from the prior; 1 as in Bayes' rule. ``"auto"``: each restart
        has its own, from 0.25 to 1, and `pyrobbb.stack` weights them by the rows that are held out
        for `calibration`; without such rows, from 0.5 to 1. A single restart has 0.7.
    engine : str, as for `pyrobbb.fit`
    device : str or torch.device, optional
        Device for fits and predictions, such as ``"cuda"``. X, y and all results stay NumPy arrays.
    early_stopping : bool
        Hold out `validation_fraction` of the rows, keep the parameters of the epoch that predicts
        them best, and stop after `patience` epochs without improvement.
    validation_fraction, patience : float, int
    columns : {"auto", "passthrough"}
        ``"auto"``: columns of a DataFrame that are not numbers, and missing values, are encoded as
        on the command line, and new frames are read by the names of their columns; arrays and
        frames of numbers alone are used as they are. ``"passthrough"``: all must be numbers.
    warm_start : bool
        Whether a further call of `fit` continues from the last posterior, in the same units.
    random_state : int, RandomState, Generator or None
        An int makes fit and predictions reproducible.
    checkpoint : path-like, optional
        Folder for checkpoints, written about once per minute. After a crash, call `fit` again with
        the same data to resume from the last one. Each fit needs a separate folder.
    verbose : bool, for a progress bar

    Attributes
    ----------
    posterior_ : Posterior, fitted to standardised data
    calibration_ : Calibration or None
        Calibration of the first fit; `warm_start` and `partial_fit` do not change it.
    columns_ : ColumnEncoder, with notes that are logged; None for an array or a frame of numbers
    hidden_, ard_, restarts_ : tuple of int, bool, int
    kl_weight_ : float, or tuple of float if those of the chains differ
    search_ : DataFrame or None
        Mean ``log_density`` of held-out rows, in units of y, with the ``standard_error`` of its
        difference from the highest, by likelihood and ``kl_weight`` (NaN: all chains), which has a
        ``share`` of the draws; first the likelihoods tried, of which one ``is_chosen``, then the
        fit that calibrates. None if nothing was tried. See `plots.plot_search`.
    first_fit_ : tuple of loss curves of the fit without the held-out rows, by chain: nats per row
    likelihood_ : callable
    input_scaling_, target_scaling_ : Standardizer; None for targets that keep their units
    seed_ : int, drawn from `random_state`
    n_features_in_ : int
    feature_names_in_ : ndarray of str, if X was a DataFrame

    Examples
    --------
    >>> model = BBBRegressor(random_state=0).fit(X, y)
    >>> mean, sd = model.predict(X_new, return_std=True)
    >>> lower, upper = model.predict_interval(X_new, 0.9)
    """

    @suggests_arguments()
    def __init__(
        self,
        hidden: int | Sequence[int] | Literal["auto"] = "auto",
        *,
        likelihood: str | likelihoods.Likelihood = "auto",
        calibration: float = 0.1,
        activation: Activation = "relu",
        ard: bool | Literal["auto"] = "auto",
        prior: str | priors.Prior = "mixture",
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float = 0.01,
        restarts: int | Literal["auto"] = "auto",
        n_draws: int = 200,
        kl_weight: float | Literal["auto"] = "auto",
        engine: EngineName = "auto",
        device: Device | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 20,
        columns: Columns = "auto",
        warm_start: bool = False,
        random_state: RandomStateLike = None,
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden,
            calibration=calibration,
            activation=activation,
            ard=ard,
            prior=prior,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            restarts=restarts,
            n_draws=n_draws,
            kl_weight=kl_weight,
            engine=engine,
            device=device,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            columns=columns,
            warm_start=warm_start,
            random_state=random_state,
            checkpoint=checkpoint,
            verbose=verbose,
        )
        self.likelihood = likelihood

    calibration_: Calibration | None
    search_: pd.DataFrame | None
    target_scaling_: Standardizer | None

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the predictive mean of y, and optionally the predictive standard deviation.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        return_std : bool

        Returns
        -------
        mean : ndarray of shape (n,) or (n, n_targets)
        sd : ndarray of the same shape
            Only with `return_std`; includes aleatoric and epistemic uncertainty.
        """
        prediction = self.predict_distribution(X)
        return (prediction.mean, prediction.sd) if return_std else prediction.mean

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval that contains y with a given probability.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        level : float
            Probability in (0, 1).

        Returns
        -------
        lower, upper : ndarray of shape (n,) or (n, n_targets)
        """
        return self.predict_distribution(X).interval(level)

    def predict_quantiles(self, X: Any, q: float | Sequence[float] = (0.05, 0.5, 0.95)) -> Any:
        """Return quantiles of y.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        q : float or sequence of k floats
            Probabilities in (0, 1).

        Returns
        -------
        ndarray of shape (n, [n_targets,] k); without the last dimension for a single probability
        """
        quantiles = self.predict_distribution(X).quantile(q)
        return np.moveaxis(quantiles, 0, -1) if np.ndim(q) else quantiles

    def sample_y(self, X: Any, n_samples: int = 1, random_state: RandomStateLike = 0) -> np.ndarray:
        """Draw y from its predictive distribution, with new weights for each sample.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        n_samples : int
        random_state : int, RandomState, Generator or None

        Returns
        -------
        ndarray of shape (n, [n_targets,] n_samples)
        """
        n_samples = as_count("n_samples", n_samples)
        seed = draw_seed(random_state)
        return np.moveaxis(self._predict(X, n_samples, seed).sample(seed), 0, -1)

    def to_botorch(
        self, n_draws: int | None = None, seed: int | None = None, **transforms: Any
    ) -> Any:
        """Return a model of BoTorch in the units of X and y; see `pyrobbb.surrogates.to_botorch`.

        By default with the draws of `predict`. X has numbers only: categories of a data frame as
        the columns into which they are encoded, as for `export`.
        """
        return exporting.botorch_model(self, n_draws, seed, transforms)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Update the posterior with further rows, with the current posterior as the prior.

        Earlier rows are not needed (Broderick et al. 2013, "Streaming Variational Bayes"). The
        first call determines the scaling of the data.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, n_targets)
        sample_weight : array-like of shape (n,), optional
        """
        with self._unchanged_on_error():
            return self._partial_fit(X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _validate(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool, **options: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        y = numeric_array("y", y)
        X, y = validate_rows(self, X, y, reset=reset, multi_output=True, y_numeric=True)
        y = np.asarray(y, dtype=np.float64)
        n_targets = as_columns(y).shape[1]
        if not reset and n_targets != self._n_targets:
            raise ValueError(
                f"`y` must have {self._n_targets} target(s) as in the first fit, got {n_targets}."
            )
        return drop_zero_weights(X, y, sample_weight)

    def _stage_names(self, y: np.ndarray) -> tuple[str, ...]:
        names = ("fit", "refit") if n_calibration_rows(self.calibration, len(y)) else ("fit",)
        tried = self._candidates(y)
        return (*tried, *names) if len(tried) > 1 else names

    def _set_up(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None, stages: Stages
    ) -> None:
        super()._set_up(X, y, weight, stages)
        n_fitted = len(X) - self._n_held(len(X), stages)
        self._training_options().n_validation_rows(n_fitted)  # raises before the first fit
        self._as_counts = likelihood_choice.are_counts(as_columns(y))
        likelihood, *others = names = self._candidates(y)
        if others:
            candidates = [self._candidate(name, X, y, weight) for name in names]
            self.search_ = likelihood_choice.choose_likelihood(
                candidates, as_columns(y), self._training_options(), stages, self.n_draws
            )
            likelihood = self.search_.likelihood[self.search_.is_chosen].item()
        elif self.likelihood == "auto":
            likelihood_choice.log_without_search(likelihood)
        self.likelihood_ = self._resolve(likelihood)
        self.target_scaling_ = self._target_scaling(self.likelihood_, y, weight)

    def _candidates(self, y: np.ndarray) -> tuple[Any, ...]:
        if self.likelihood != "auto":
            return (self.likelihood,)
        n_steps = planned_steps(self.epochs, self.batch_size, len(y))
        return likelihood_choice.candidate_likelihoods(as_columns(y), n_steps)

    def _candidate(
        self, name: str, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None
    ) -> likelihood_choice.Candidate:
        likelihood = self._resolve(name)
        scaling = self._target_scaling(likelihood, y, weight)
        rows = prepare(X, as_columns(y), weight, self.input_scaling_, scaling)
        network = self._network(likelihood)
        return likelihood_choice.Candidate(name, network, self.hidden_, rows, scaling)

    def _target_scaling(
        self, likelihood: likelihoods.Likelihood, y: np.ndarray, weight: np.ndarray | None
    ) -> Standardizer | None:
        return target_scaling(self._network(likelihood), n_inputs(self), as_columns(y), weight)

    def _prepare(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> Rows:
        return prepare(X, as_columns(y), weight, self.input_scaling_, self.target_scaling_)

    def _fit_stages(self, rows: Rows, stages: Stages) -> Posterior:
        self.calibration_ = None
        options, n_held = self._training_options(), self._n_held(len(rows), stages)
        if isinstance(self.kl_weight, str) and not n_held:
            weights = spread_kl_weights(options.restarts, is_checked=False)
            options = dataclasses.replace(options, kl_weight=weights)
        make_network = partial(self._network, self.likelihood_)
        return fit_and_calibrate(make_network, rows, options, stages, n_held, self._calibrate)

    def _n_held(self, n_rows: int, stages: Stages) -> int:
        return n_calibration_rows(self.calibration, n_rows) if "refit" in stages.names else 0

    def _calibrate(self, posterior: Posterior, held: Rows) -> Posterior:
        """Weight the chains if they differ in their KL weights, then calibrate their mixture."""
        self.first_fit_ = loss_curves(posterior.chains)
        density = likelihood_choice.held_out_densities(
            posterior, held, self.target_scaling_, self.n_draws, self.seed_, self._as_counts
        )
        name = likelihood_name(self.likelihood_)
        posterior, self.search_ = stack_first_fit(
            posterior, density, held.weight, name, self.hidden_, self.search_
        )
        self.calibration_ = calibrate_intervals(posterior, held, self.n_draws, self.seed_)
        return posterior

    def _automatic_kl_weights(self) -> float | tuple[float, ...]:
        return spread_kl_weights(self.restarts_)

    def _fitted_parameters(self) -> dict[str, Any]:
        fitted = super()._fitted_parameters()
        if self.likelihood == "auto" or self._resolve(self.likelihood) == self.likelihood_:
            return fitted
        return {**fitted, "likelihood": self.likelihood_}

    def _resolve(self, likelihood: str | likelihoods.Likelihood) -> likelihoods.Likelihood:
        return resolve_likelihood(likelihood, self._n_targets)

    @property
    def _n_targets(self) -> int:
        return int(np.prod(self._y_shape))

    def _n_outputs(self, likelihood: likelihoods.Likelihood) -> int:
        has_scale = isinstance(likelihood, likelihoods.HeteroscedasticGaussian)
        return (1 + has_scale) * self._n_targets

    def _predict_inputs(self, x: np.ndarray, n_draws: int, seed: int) -> RegressionPrediction:
        prediction = super()._predict_inputs(x, n_draws, seed)
        prediction = in_target_units(prediction, self.target_scaling_).calibrated(self.calibration_)
        return prediction if self._y_shape else prediction.column(0)

    def _description(self) -> dict[str, Any]:
        return {
            "y_shape": list(self._y_shape),
            "calibration": storage.calibration_to_json(self.calibration_),
        }

    def _restore(self, description: Mapping[str, Any]) -> None:
        self._y_shape = tuple(description["y_shape"])
        self.calibration_ = calibration_from_json(description.get("calibration"))
        scaling = self.target_scaling_ = getattr(self, "target_scaling_", None)
        if scaling is not None and scaling.loc.shape != (self._n_targets,):
            raise ValueError("it does not have a scaling for each target")
        if isinstance(self.likelihood_, likelihoods.LogNormal) != is_log(scaling):
            raise ValueError("it does not have the scaling that its likelihood needs")
