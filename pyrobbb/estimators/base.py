"""scikit-learn estimators: BBBRegressor and BBBClassifier.

Inputs and target are standardised inside, and inputs far out drawn nearer; everything that comes
out is in the units of y.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import nn

from .. import likelihoods, priors
from .._core.arrays import check_count, check_number, supports_float64
from ..model.mlp import Activation, mlp
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..posterior.posterior import Posterior
from ..posterior.updating import update
from ..prediction.calibration import Calibration
from ..prediction.predictions import ClassificationPrediction, RegressionPrediction
from ..prediction.scaling import Standardizer
from ..training.checkpoints import stored_seed
from ..training.config import EngineName
from ..training.placement import Device, as_device
from . import storage as estimator_storage

__all__ = ["BBBClassifier", "BBBRegressor"]

logger = logging.getLogger(__name__)

PRIORS: Mapping[str, priors.Prior] = {
    "mixture": priors.ScaleMixture(0.5, 1.0, 0.1),
    "normal": priors.Normal(),
    "fan_in": priors.FanInNormal(),
    "laplace": priors.Laplace(),
    "student_t": priors.StudentT(),
}
LIKELIHOODS: Mapping[str, likelihoods.Conditional] = {
    "gaussian": likelihoods.Gaussian(),
    "heteroscedastic": likelihoods.HeteroscedasticGaussian(),
    "student_t": likelihoods.StudentT(),
    "poisson": likelihoods.Poisson(),
    "negative_binomial": likelihoods.NegativeBinomial(),
}
AUTO = ("gaussian", "heteroscedastic")
AUTO_FRACTION = 0.2
SMALL, LARGE = (50,), (50, 50)
ROWS_FOR_LARGE = 5_000
OPTIMIZER = partial(torch.optim.Adam, betas=(0.9, 0.99))
"""A single outlier may make a gradient a million times as large as usual, where the noise is taken
to be small. With torch's 0.999, a fit would stand still for thousands of steps after it."""
STEEPEST = 100.0
"""Bound on the norm of the gradient, for each row of the data. Without one, such an outlier may
throw a chain far off; one that is reached in common steps would teach too little noise."""
STEPS, MOST_EPOCHS, LEAST_EPOCHS = 40_000, 10_000, 20
FAR = 3.0
"""Standard deviations from the mean within which inputs are left as they are."""
LEAST_HELD, MOST_HELD = 9, 1_000
"""Rows to calibrate by: with fewer, a 90 % interval would be wider than the furthest of them; more
would not tell much more."""
TAKE_UP = 0.25
"""Part of the epochs, and of the learning rate, by which the rows held out are taken up."""
COUNTS = (likelihoods.Poisson, likelihoods.NegativeBinomial)


class _BBBEstimator(BaseEstimator):
    """What both estimators share: from a table to a posterior, and back to predictions."""

    def __init__(
        self,
        hidden: Sequence[int] | Literal["auto"] = "auto",
        *,
        activation: Activation = "relu",
        prior: str | priors.Prior = "mixture",
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float = 0.01,
        restarts: int = 4,
        n_draws: int = 200,
        kl_weight: float = 0.7,
        engine: EngineName = "auto",
        device: Device | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 20,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.prior = prior
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.restarts = restarts
        self.n_draws = n_draws
        self.kl_weight = kl_weight
        self.engine = engine
        self.device = device
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.warm_start = warm_start
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.verbose = verbose

    posterior_: Posterior

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the posterior.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            Numbers: an array, or a frame of pandas or polars, whose column names are kept.
        y : array-like of shape (n,), or (n, n_targets) in a regression
        sample_weight : array-like of shape (n,), optional
            How many times each row counts. They are not normalised: a weight of 2 is the row twice.
        """
        again = self.warm_start and self.__sklearn_is_fitted__()
        X, y = self._validated(X, y, reset=not again)
        X, y, weight = _weighted(X, y, sample_weight)
        if not again:
            return self._start(X, y, weight)
        self._n_fits = 0
        self.posterior_ = self._fitted(X, y, weight, self.posterior_)
        return self

    def _start(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> Self:
        """Fit for the first time."""
        self._n_fits = 0
        self._begin(X, y, weight)
        self.posterior_ = self._first_fit(X, y, weight)
        return self

    def _first_fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> Posterior:
        return self._fitted(X, y, weight)

    def predict_distribution(self, X: Any) -> Any:
        """Give the predictive distribution of each row.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        RegressionPrediction or ClassificationPrediction
            In the units of y, and in its shape.
        """
        check_is_fitted(self)
        return self._prediction(X, self.n_draws, self.seed_)  # the same draws each time

    def diagnose(self, X: Any, y: Any, **options: Any) -> Any:
        """Say, line by line, whether the posterior can be relied on.

        Parameters
        ----------
        X, y : array-like
            The data that it was fitted to.
        **options
            Of `pyrobbb.diagnostics.diagnose`.
        """
        return self.posterior_.diagnose(*self.standardised(X, y), **options)

    def to_arviz(self, X: Any, y: Any, **options: Any) -> Any:
        """Give the posterior as a DataTree for ArviZ, of the standardised data.

        Parameters
        ----------
        X, y : array-like
        **options
            Of `pyrobbb.arviz_io.to_arviz`.
        """
        return self.posterior_.to_arviz(*self.standardised(X, y), **options)

    def standardised(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Give data as the network sees them, for use with ``posterior_``."""
        check_is_fitted(self)
        X, y = self._validated(X, y, reset=False)
        return self._inputs(X), self._target(y)

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Write the estimator into a folder, without pickle.

        The folder is also one of `Posterior.load`.

        Parameters
        ----------
        path : path-like
        extra : mapping, optional
            Plain data to store beside it, for `pyrobbb.estimator_storage.read`.
        """
        check_is_fitted(self)
        estimator_storage.write(path, self, extra or {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator from a folder.

        Raises
        ------
        FileNotFoundError, ValueError
            If the folder is not there, is damaged, or holds another kind of estimator.
        """
        estimator, _ = estimator_storage.read(path, KINDS)
        if not isinstance(estimator, cls):
            raise ValueError(
                f"`path` {os.fspath(path)!r} holds a {type(estimator).__name__}, no {cls.__name__}."
            )
        return estimator

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "posterior_")

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        """Give inputs as the network sees them."""
        return drawn_in(self.input_scaling_.transform(X))

    def _layers(self, n_rows: int) -> tuple[int, ...]:
        if isinstance(self.hidden, str):
            if self.hidden != "auto":
                raise ValueError(
                    f"`hidden` must be 'auto' or a sequence such as (50, 50), got {self.hidden!r}."
                )
            return LARGE if n_rows >= ROWS_FOR_LARGE else SMALL
        return tuple(int(n) for n in self.hidden)

    def _begin(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Settle what a first fit settles: the units, and the seed of all that is drawn."""
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        if self.checkpoint is not None and self.random_state is None:
            stored = stored_seed(self._checkpoint(1))
            self.seed_ = self.seed_ if stored is None else stored
        self.input_scaling_ = Standardizer.of(X, weight)
        self.hidden_ = self._layers(len(X))
        self._begin_target(X, y, weight)

    def _fitted(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray | None,
        start: Posterior | None = None,
        part: float = 1.0,
    ) -> Posterior:
        """Fit a posterior to validated data, in a part of the usual epochs and steps as small."""
        x, target = self._inputs(X), self._target(y)
        validation = patience = None
        if self.early_stopping:
            if not 0 < self.validation_fraction < 1:
                raise ValueError(
                    f"`validation_fraction` must lie in (0, 1), got {self.validation_fraction}."
                )
            fitted, held = self._split(y, self.validation_fraction)
            validation, patience = (x[held], target[held]), self.patience
            x, target = x[fitted], target[fitted]
            weight = None if weight is None else weight[fitted]
        network = self._network(self.likelihood_, x.shape[1])
        device = as_device(self.device)
        if len(x) <= self.batch_size and (device is None or supports_float64(device)):
            network.double()  # costs little, and equal data give equal fits, however they are told
        how = self._how(len(x), weight)
        how |= {"epochs": math.ceil(part * how["epochs"]), "lr": part * how["lr"]}
        if start is not None:  # as many chains as that has; a warm-up would lead away from it
            how |= {"start": start, "restarts": 1, "kl_warmup": 0.0}
        posterior = self._posterior(
            network,
            x,
            target,
            sample_weight=weight,
            validation=validation,
            patience=patience,
            **how,
        )
        return _in_double(posterior)

    def _posterior(
        self, network: BayesianNetwork, x: np.ndarray, target: np.ndarray, **how: Any
    ) -> Posterior:
        """Fit one of the posteriors of which a call of `fit` is made, in a fixed order."""
        self._n_fits += 1
        checkpoint = None if self.checkpoint is None else self._checkpoint(self._n_fits)
        return fit(network, x, target, checkpoint=checkpoint, **how)

    def _checkpoint(self, number: int) -> Path:
        assert self.checkpoint is not None
        return Path(self.checkpoint) / f"fit-{number}"

    def _learn_more(self, X: Any, y: Any, sample_weight: Any, **options: Any) -> Self:
        is_first = not self.__sklearn_is_fitted__()
        X, y = self._validated(X, y, reset=is_first, **(options if is_first else {}))
        X, y, weight = _weighted(X, y, sample_weight)
        if is_first:
            return self._start(X, y, weight)
        x, target = self._inputs(X), self._target(y)
        how = self._how(len(x), weight) | {"epochs": self.epochs}
        del how["restarts"]
        self.posterior_ = update(self.posterior_, x, target, sample_weight=weight, **how)
        return self

    def _how(self, n_rows: int, weight: np.ndarray | None) -> dict[str, Any]:
        """Give the arguments of `pyrobbb.fit` that are this estimator's parameters."""
        check_count("batch_size", self.batch_size)
        epochs = self.epochs
        if epochs is None:
            epochs = min(math.ceil(STEPS / math.ceil(n_rows / self.batch_size)), MOST_EPOCHS)
            epochs = max(epochs, LEAST_EPOCHS)
        return {
            "epochs": epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "restarts": self.restarts,
            "optimizer": OPTIMIZER,
            "clip_norm": STEEPEST * (n_rows if weight is None else float(weight.sum())),
            "kl_weight": float(self.kl_weight),
            "engine": self.engine,
            "device": self.device,
            "seed": self.seed_,
            "progress": self.verbose,
        }

    def _network(self, likelihood: likelihoods.Likelihood, n_features: int) -> BayesianNetwork:
        n_out = self._n_units(likelihood)
        net = mlp(n_features, self.hidden_, n_out, self.activation, seed=self.seed_)
        return BayesianNetwork(net, _named("prior", self.prior, PRIORS), likelihood)

    def _split(self, y: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
        """Give the rows to fit and those held out: a part, or a number of them."""
        if len(y) < 2:
            raise ValueError(
                "`early_stopping` and likelihood='auto' need more than one row, to hold some out."
            )
        return train_test_split(
            np.arange(len(y)), test_size=size, random_state=self.seed_, stratify=self._strata(y)
        )

    def _prediction(self, X: Any, n_draws: int, seed: int) -> Any:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return self.posterior_.predict(self._inputs(X), n_draws, seed)


class BBBRegressor(RegressorMixin, _BBBEstimator):
    """Regression by a Bayesian neural network, for scikit-learn.

    The defaults are meant to need no tuning on tables of 100 to 100,000 rows.

    Parameters
    ----------
    hidden : sequence of int or "auto"
        Units of the hidden layers; empty for a linear model. ``"auto"``: 50, and with 5,000 rows or
        more a second layer of 50, which fewer do not fill.
    likelihood : str or callable
        ``"gaussian"``: noise of constant scale, which is learnt; ``"heteroscedastic"``: of a scale
        that depends on the inputs; ``"student_t"``: with outliers; ``"poisson"`` and
        ``"negative_binomial"``: counts; ``"auto"``: the one of the first two under which a fifth
        of the rows, held out once, has the higher density. Or one of `pyrobbb.likelihoods`, whose
        parameters are in units of the standard deviation of y.
    activation : str
        See `pyrobbb.mlp`.
    prior : str or callable
        ``"mixture"``, ``"normal"``, ``"fan_in"``, ``"laplace"``, ``"student_t"``, or one of
        `pyrobbb.priors`.
    epochs : int, optional
        Passes over the data. None: as many as make 40,000 steps, at most 10,000 and at least 20.
    batch_size : int
        Rows a step.
    lr : float
        Highest learning rate.
    restarts : int
        Independent fits, over which predictions average.
    n_draws : int
        Draws of the weights in a prediction.
    calibration : float
        Part of the rows, at most 1,000 of them, to calibrate intervals and quantiles by, in [0, 1).
        They are held out of the first fit, and taken up in a second that starts from it, for a
        quarter of the epochs and of `lr`. 0, or too few rows (below 90 with 0.1): intervals are
        those of the predictive mixture.
    kl_weight : float
        Factor on the KL divergence from the prior. With 1, that of Bayes' rule, mean-field
        intervals came out too wide where there is little noise; with 0.5, too narrow where there
        are few rows: by held-out rows of the training parts of eight UCI sets.
    engine : str
        See `pyrobbb.fit`.
    device : str or torch.device, optional
        Where to fit and to predict, such as ``"cuda"``. X and y, and all results, are where they
        are without.
    early_stopping : bool
        Hold out `validation_fraction` of the rows, keep the parameters of the epoch that predicts
        them best, and stop after `patience` epochs without a better one.
    validation_fraction : float
    patience : int
    warm_start : bool
        Whether a further call of `fit` goes on from the last posterior, in the same units.
    random_state : int, RandomState or None
        An int makes fit and predictions repeatable.
    checkpoint : path-like, optional
        Folder in which `fit` writes how far it is, about once a minute: called again with the same
        data after a crash, it goes on from there. A further fit needs a folder of its own.
    verbose : bool
        Show a progress bar.

    Attributes
    ----------
    posterior_ : Posterior
        Of the standardised data.
    calibration_ : Calibration or None
        Of the first fit; it stays when `warm_start` or `partial_fit` goes on.
    hidden_ : tuple of int
    likelihood_ : callable
    input_scaling_, target_scaling_ : Standardizer
        The latter None for counts.
    seed_ : int
        What `random_state` gave.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X was a frame.

    Examples
    --------
    >>> model = BBBRegressor(random_state=0).fit(X, y)
    >>> mean, sd = model.predict(X_new, return_std=True)
    >>> lower, upper = model.predict_interval(X_new, 0.9)
    """

    def __init__(
        self,
        hidden: Sequence[int] | Literal["auto"] = "auto",
        *,
        likelihood: str | likelihoods.Likelihood = "gaussian",
        calibration: float = 0.1,
        activation: Activation = "relu",
        prior: str | priors.Prior = "mixture",
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float = 0.01,
        restarts: int = 4,
        n_draws: int = 200,
        kl_weight: float = 0.7,
        engine: EngineName = "auto",
        device: Device | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 20,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden,
            activation=activation,
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
            warm_start=warm_start,
            random_state=random_state,
            checkpoint=checkpoint,
            verbose=verbose,
        )
        self.likelihood = likelihood
        self.calibration = calibration

    calibration_: Calibration | None

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the mean of y, and its standard deviation: noise and doubt together.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        return_std : bool

        Returns
        -------
        mean : ndarray of shape (n,) or (n, n_targets)
        sd : ndarray of the same shape, with `return_std`
        """
        prediction = self.predict_distribution(X)
        return (prediction.mean, prediction.sd) if return_std else prediction.mean

    def predict_distribution(self, X: Any) -> RegressionPrediction:
        """Give the predictive distribution of each row: mean, noise and doubt, quantiles.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        RegressionPrediction
            In the units of y, and in its shape.
        """
        return super().predict_distribution(X)

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Give the central interval that holds y with a probability.

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
        """Give quantiles of y.

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

    def sample_y(
        self, X: Any, n_samples: int = 1, random_state: int | np.random.RandomState | None = 0
    ) -> np.ndarray:
        """Draw y from its predictive distribution, the weights drawn anew for each sample.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        n_samples : int
        random_state : int, RandomState or None

        Returns
        -------
        ndarray of shape (n, [n_targets,] n_samples)
        """
        check_count("n_samples", n_samples)
        seed = int(check_random_state(random_state).randint(2**31))
        return np.moveaxis(self._prediction(X, n_samples, seed).sample(seed), 0, -1)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from more rows: the posterior so far is the prior of what comes.

        Nothing of earlier rows is kept but the posterior. Units are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, n_targets)
        sample_weight : array-like of shape (n,), optional

        References
        ----------
        Broderick et al. (2013), "Streaming Variational Bayes".
        """
        return self._learn_more(X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(
            self, X, y, reset=reset, multi_output=True, y_numeric=True, dtype=np.float64
        )
        y = np.asarray(y, dtype=np.float64)
        if not reset and y.shape[1:] != self._y_shape:
            raise ValueError(
                f"`y` must have rows of shape {self._y_shape} as in the first fit, got {y.shape}."
            )
        return X, y

    def _first_fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> Posterior:
        """Fit with some rows held out, calibrate by them, and take them up."""
        self.calibration_ = None
        n_held = self._n_held(len(y))
        if not n_held:
            return self._fitted(X, y, weight)
        fitted, held = self._split(y, n_held)
        first = self._fitted(X[fitted], y[fitted], None if weight is None else weight[fitted])
        x, target = self._inputs(X[held]), self._target(y[held])
        prediction = first.predict(x, self.n_draws, self.seed_)
        assert isinstance(prediction, RegressionPrediction)
        try:
            levels = prediction.central_level(target)
        except NotImplementedError as error:  # a likelihood of the user's own
            logger.warning("Intervals are not calibrated: %s", error)
        else:
            self.calibration_ = Calibration.of(levels, None if weight is None else weight[held])
        return self._fitted(X, y, weight, first, TAKE_UP)

    def _n_held(self, n_rows: int) -> int:
        """Give the number of rows to calibrate by: 0 or enough."""
        check_number("calibration", self.calibration)
        if not 0 <= self.calibration < 1:
            raise ValueError(
                "`calibration` must be a part of the rows in [0, 1), 0 for none, got "
                f"{self.calibration}."
            )
        n_held = min(int(self.calibration * n_rows), MOST_HELD)
        if self.calibration > 0 and n_held < LEAST_HELD:
            logger.info("%d rows are too few to calibrate intervals by a part of them.", n_rows)
            return 0
        return n_held

    def _begin_target(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> None:
        self._y_shape = y.shape[1:]
        self.target_scaling_: Standardizer | None = Standardizer.of(y.reshape(len(y), -1), weight)
        name = self.likelihood
        self.likelihood_ = self._chosen(X, y, weight) if name == "auto" else self._observed(name)
        if isinstance(self.likelihood_, COUNTS):
            self.target_scaling_ = None

    def _observed(self, likelihood: str | likelihoods.Likelihood) -> likelihoods.Likelihood:
        found = _named("likelihood", likelihood, LIKELIHOODS)
        n_targets = int(np.prod(self._y_shape))
        is_noisy = isinstance(found, likelihoods.Gaussian | likelihoods.StudentT)
        if is_noisy and n_targets > 1 and isinstance(found.noise_median, float):
            # Each target has a noise scale of its own.
            return dataclasses.replace(found, noise_median=(found.noise_median,) * n_targets)
        return found

    def _chosen(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None
    ) -> likelihoods.Likelihood:
        """Give the likelihood under which held-out rows have the highest density."""
        fitted, held = self._split(y, AUTO_FRACTION)
        x, target = self._inputs(X), self._target(y)
        own = None if weight is None else weight[fitted]
        how = self._how(len(fitted), own) | {"restarts": 1}
        densities = {}
        for name in AUTO:
            network = self._network(self._observed(name), x.shape[1])
            posterior = self._posterior(
                network, x[fitted], target[fitted], sample_weight=own, **how
            )
            prediction = posterior.predict(x[held], self.n_draws, self.seed_)
            densities[name] = np.average(
                prediction.log_prob(target[held]), weights=None if weight is None else weight[held]
            )
        return self._observed(max(densities, key=lambda name: densities[name]))

    def _target(self, y: np.ndarray) -> np.ndarray:
        columns = y.reshape(len(y), -1)
        return columns if self.target_scaling_ is None else self.target_scaling_.transform(columns)

    def described(self) -> dict[str, Any]:
        """Give what `estimator_storage` stores of this kind of estimator alone."""
        calibration = self.calibration_
        return {
            "y_shape": list(self._y_shape),
            "calibration": None
            if calibration is None
            else {"share": calibration.share.tolist(), "level": calibration.level.tolist()},
        }

    def restore(self, description: Mapping[str, Any], posterior: Posterior) -> None:
        """Take up what `described` gave, and the posterior."""
        self._y_shape = tuple(description["y_shape"])
        stored = description.get("calibration")
        self.calibration_ = None if stored is None else Calibration(**stored)
        self.posterior_, self.likelihood_ = posterior, posterior.chains[0].network.likelihood
        if not hasattr(self, "target_scaling_"):
            self.target_scaling_ = None
        elif self.target_scaling_ is not None:
            n_targets = int(np.prod(self._y_shape))
            if self.target_scaling_.loc.shape != (n_targets,):
                raise ValueError("it has not a scaling for each target")

    def _n_units(self, likelihood: likelihoods.Likelihood) -> int:
        n_targets = int(np.prod(self._y_shape))
        is_scaled = isinstance(likelihood, likelihoods.HeteroscedasticGaussian)
        return 2 * n_targets if is_scaled else n_targets

    def _strata(self, y: np.ndarray) -> None:
        return None

    def _prediction(self, X: Any, n_draws: int, seed: int) -> RegressionPrediction:
        prediction = super()._prediction(X, n_draws, seed)
        if self.target_scaling_ is not None:
            prediction = prediction.rescaled(self.target_scaling_.loc, self.target_scaling_.scale)
        prediction = prediction.calibrated(self.calibration_)
        return prediction if self._y_shape else prediction.column(0)


class BBBClassifier(ClassifierMixin, _BBBEstimator):
    """Classification by a Bayesian neural network, for scikit-learn.

    The defaults are meant to need no tuning on tables of 100 to 100,000 rows.

    Parameters
    ----------
    hidden, activation, prior, epochs, batch_size, lr, restarts, n_draws, kl_weight, engine, device
        As for `BBBRegressor`.
    early_stopping, validation_fraction, patience, warm_start, random_state, checkpoint, verbose
        As for `BBBRegressor`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; of any type.
    posterior_ : Posterior
        Of the standardised inputs, with the index of the class as y.
    hidden_ : tuple of int
    likelihood_ : callable
    input_scaling_ : Standardizer
    seed_ : int
        What `random_state` gave.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X was a frame.

    Examples
    --------
    >>> model = BBBClassifier(random_state=0).fit(X, y)
    >>> model.predict_proba(X_new)
    >>> model.decision_uncertainty(X_new)  # doubt about the weights, in nats
    """

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class, shape (n,)."""
        most_probable = self.predict_distribution(X).probs.argmax(1)
        return self.classes_[most_probable]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Give the probability of each class, shape (n, n_classes), in the order of ``classes_``.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        """
        return self.predict_distribution(X).probs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Give the logarithm of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def predict_distribution(self, X: Any) -> ClassificationPrediction:
        """Give the predictive distribution of each row: probabilities, noise and doubt.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ClassificationPrediction
            Of the index of the class in ``classes_``.
        """
        return super().predict_distribution(X)

    def decision_uncertainty(self, X: Any) -> np.ndarray:
        """Give the mutual information of class and weights: doubt that more data could lift.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,)
            In nats, at least 0.
        """
        return self.predict_distribution(X).mutual_information

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn from more rows: the posterior so far is the prior of what comes.

        Nothing of earlier rows is kept but the posterior. Units are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,)
        classes : array-like of shape (n_classes,), optional
            All classes that there will be; for the first call. None: those of y.
        sample_weight : array-like of shape (n,), optional

        References
        ----------
        Broderick et al. (2013), "Streaming Variational Bayes".
        """
        if classes is not None:
            classes = np.unique(classes)
            if not self.__sklearn_is_fitted__():
                self.classes_ = classes
            elif not np.array_equal(classes, self.classes_):
                raise ValueError(
                    f"`classes` must be those of the first call, {self.classes_.tolist()}, got "
                    f"{classes.tolist()}."
                )
        return self._learn_more(X, y, sample_weight, keeps_classes=classes is not None)

    def _validated(
        self, X: Any, y: Any, *, reset: bool, keeps_classes: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, reset=reset, dtype=np.float64)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if reset and not keeps_classes:
            self.classes_ = np.unique(y)
        index = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        unknown = self.classes_[index] != y
        if unknown.any():
            raise ValueError(
                f"`y` holds the class {y[unknown].tolist()[0]!r}, which is none of the first fit: "
                f"{self.classes_.tolist()}."
            )
        if len(self.classes_) < 2:
            raise ValueError(
                f"`y` must hold at least two classes, got one class: {self.classes_.tolist()}."
            )
        return X, index

    def _begin_target(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> None:
        self.likelihood_: likelihoods.Likelihood = likelihoods.Categorical()

    def _target(self, y: np.ndarray) -> np.ndarray:
        return y

    def described(self) -> dict[str, Any]:
        """Give what `estimator_storage` stores of this kind of estimator alone."""
        return {"classes": estimator_storage.labels_to_json(self.classes_)}

    def restore(self, description: Mapping[str, Any], posterior: Posterior) -> None:
        """Take up what `described` gave, and the posterior."""
        self.classes_ = estimator_storage.labels_from_json(description["classes"])
        self.posterior_, self.likelihood_ = posterior, posterior.chains[0].network.likelihood

    def _n_units(self, likelihood: likelihoods.Likelihood) -> int:
        return len(self.classes_)

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        """Keep the classes' shares in both parts, unless one has too few rows for that."""
        return y if np.unique(y, return_counts=True)[1].min() > 1 else None


KINDS: Mapping[str, type[_BBBEstimator]] = {
    kind.__name__: kind for kind in (BBBRegressor, BBBClassifier)
}


def drawn_in(z: np.ndarray) -> np.ndarray:
    """Draw values beyond `FAR` nearer: to FAR + log(1 + |z| - FAR), with their sign.

    Between, they stay. The order stays, too. A network continues its slopes for ever: a row eight
    standard deviations out may be given next to no noise, and far too sure a prediction.
    """
    beyond = np.maximum(np.abs(z) - FAR, 0.0)
    return np.sign(z) * (np.minimum(np.abs(z), FAR) + np.log1p(beyond))


def _named(argument: str, value: Any, known: Mapping[str, Any]) -> Any:
    """Give the part that a name stands for; a callable stands for itself."""
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"`{argument}` must be one of {', '.join(known)}, got {value!r}.")
        return known[value]
    return value


def _weighted(
    X: np.ndarray, y: np.ndarray, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the weights, and leave out rows of weight 0."""
    if sample_weight is None:
        return X, y, None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    counts = weight > 0
    if not counts.any():
        raise ValueError("`sample_weight` must not be 0 for all rows.")
    return X[counts], y[counts], weight[counts]


def _in_double(posterior: Posterior) -> Posterior:
    """Give a posterior in double precision: a target may be 1e9 with a spread of 1."""
    if not supports_float64(posterior.chains[0].example.device):
        return posterior
    chains = []
    for chain in posterior.chains:
        chain.network.double()
        if isinstance(chain.guide, nn.Module):
            chain.guide.double()
        chains.append(dataclasses.replace(chain, example=chain.example.double()))
    return Posterior(tuple(chains))
