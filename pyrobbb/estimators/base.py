"""BBBEstimator: the base class of both estimators."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_regressor
from sklearn.utils.validation import check_is_fitted

from .. import likelihoods, priors
from .._core import progress
from .._core.error_pages import add_page
from .._core.signatures import suggests_arguments
from ..columns import ColumnEncoder
from ..export import Format
from ..fitted import raise_if_interrupted
from ..model.mlp import Activation, as_layers
from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior
from ..posterior.updating import update
from ..prediction import Standardizer
from ..prediction.frame import index_of
from ..training.config import EngineName
from ..training.placement import Device
from . import exporting, storage
from .inputs import n_inputs, validate_inputs
from .networks import SMALL_TABLE, build_network, choose_sizes
from .parameters import Columns, RandomStateLike, check_parameters, draw_seed, whole_numbers
from .preparation import Rows, scale_inputs
from .stages import SINGLE_KL_WEIGHT, Stages, TrainingOptions, fit_once


class BBBEstimator(BaseEstimator):
    """Base class of the estimators, which fit a posterior to a table and predict from it.

    A call of `fit` validates the data (`_validate`), chooses the size of the network and the
    scaling of the data (`_set_up`), scales them (`_prepare`) and fits the posterior
    (`_fit_stages`).
    """

    @suggests_arguments()
    def __init__(
        self,
        hidden: int | Sequence[int] | Literal["auto"] = "auto",
        *,
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
        self.hidden = hidden
        self.calibration = calibration
        self.activation = activation
        self.ard = ard
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
        self.columns = columns
        self.warm_start = warm_start
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.verbose = verbose

    posterior_: Posterior
    columns_: ColumnEncoder | None
    likelihood_: likelihoods.Likelihood
    input_scaling_: Standardizer
    hidden_: tuple[int, ...]
    ard_: bool
    restarts_: int
    seed_: int
    _y_shape: tuple[int, ...]  # of a row, in the last fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the posterior.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            Numbers, or DataFrame of pandas or polars, whose columns are encoded; see `columns`.
        y : array-like of shape (n,), or (n, n_targets) for regression
        sample_weight : array-like of shape (n,), optional
            Weights of the rows, not normalised: a row of weight 2 counts as two equal rows.
        """
        with self._unchanged_on_error():
            return self._fit(X, y, sample_weight)

    def predict_distribution(self, X: Any) -> Any:
        """Return the predictive distribution of each row.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        RegressionPrediction or ClassificationPrediction
            In the units and the shape of y.
        """
        check_is_fitted(self)
        return self._predict(X, self.n_draws, self.seed_)  # the same draws in every call

    def diagnose(self, X: Any, y: Any, *, test: Any = None, **options: Any) -> Any:
        """Run the checks of `pyrobbb.diagnostics`, which show whether the posterior is reliable.

        Scores and calibration are those of its predictions; the other checks are of ``posterior_``.

        Parameters
        ----------
        X, y : array-like, the data of the fit
        test : tuple (X, y), optional
            Data not used in the fit, for scores and calibration. None: X and y.
        **options
            Further options of `pyrobbb.diagnostics.diagnose`.
        """
        x, target = self.standardised(X, y)
        scored = (X, y) if test is None else test
        inputs, observed, _ = self._validate(scored[0], scored[1], None, reset=False)
        prediction = self._predict_inputs(inputs, self.n_draws, self.seed_)
        options = {"scored": (prediction, observed), **options}
        options["test"] = None if test is None else self.standardised(*test)
        return self.posterior_.diagnose(x, target, **options)

    def to_arviz(self, X: Any, y: Any, **options: Any) -> Any:
        """Convert the posterior into a DataTree for ArviZ, with the standardised data.

        Parameters
        ----------
        X, y : array-like
        **options
            Options of `pyrobbb.arviz_io.to_arviz`.
        """
        x, y = self.standardised(X, y)  # first, as it raises without a fit
        return self.posterior_.to_arviz(x, y, **options)

    def standardised(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return data in the units of the network, as ``posterior_`` needs them."""
        check_is_fitted(self)
        X, y, _ = self._validate(X, y, None, reset=False)
        rows = self._prepare(X, y, None)
        return rows.x, rows.y

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Write the estimator into a folder, without pickle.

        `Posterior.load` reads the posterior from the same folder.

        Parameters
        ----------
        path : path-like
        extra : mapping, optional
            Plain data to store with it, which `pyrobbb.storage.read_extra` returns.
        """
        check_is_fitted(self)
        storage.write(path, self, extra or {})

    def export(
        self,
        path: str | os.PathLike[str],
        format: Format | None = None,
        n_draws: int | None = None,
        *,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a file that predicts without pyrobbb; see `Posterior.export`.

        It takes the columns of X, or of ``columns_.encode(X)``, in double precision, and returns
        what `predict_distribution` returns, in the units of y, with calibrated quantiles.

        Parameters
        ----------
        path : path-like
        format : {"torch", "onnx"}, optional
            None: by the suffix of the path, `.pt2` or `.onnx`.
        n_draws : int, optional
            None: that of the estimator, with which the numbers are those of its predictions.
        quantiles : sequence of k floats
            Probabilities of the quantiles of a regression, in (0, 1).
        metadata : mapping, further plain data to store as JSON
        """
        check_is_fitted(self)
        n_draws = self.n_draws if n_draws is None else n_draws
        exporting.write(path, self, format, n_draws, quantiles, metadata or {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator from a folder.

        Raises
        ------
        FileNotFoundError, ValueError
            If the folder does not exist, is damaged, or contains an estimator of another class.
        """
        estimator, _ = storage.read(path, [cls])
        return estimator

    @property
    def kl_weight_(self) -> float | tuple[float, ...]:
        """Factor on the KL divergence; one for each chain if they differ."""
        weights = tuple(float(chain.settings["kl_weight"]) for chain in self.posterior_.chains)
        return weights[0] if len(set(weights)) == 1 else weights

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "posterior_")

    @contextmanager
    def _unchanged_on_error(self) -> Iterator[None]:
        """Restore all attributes if a fit fails, so that they belong to one fit."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException as error:
            self.__dict__.clear()
            self.__dict__.update(before)
            add_page(error)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        resumes = self.warm_start and self.__sklearn_is_fitted__()
        self._check_parameters(is_further=resumes)
        X, y, weight = self._validate(X, y, sample_weight, reset=not resumes)
        self._y_shape = y.shape[1:]
        if not resumes:
            return self._fit_from_scratch(X, y, weight, len(X))
        self.first_fit_: tuple[Any, ...] = ()
        self.posterior_ = fit_once(
            self._network(self.likelihood_),
            self._prepare(X, y, weight),
            self._training_options(is_further=True),
            checkpoint=Stages(("fit",), self.checkpoint).folder("fit"),
            start=self.posterior_,
        )
        return self

    def _fit_from_scratch(self, X: Any, y: np.ndarray, weight: np.ndarray | None, n: int) -> Self:
        sizes = choose_sizes(whole_numbers(self.get_params(deep=False)), n, is_regressor(self))
        self.hidden_, self.ard_, self.restarts_ = sizes
        stages = Stages(self._stage_names(y), self.checkpoint)
        with progress.stages(stages.shares()):
            self._set_up(X, y, weight, stages)
            self.posterior_ = self._fit_stages(self._prepare(X, y, weight), stages)
        return self

    def _set_up(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None, stages: Stages
    ) -> None:
        """Set the seed and the scaling, which later calls keep."""
        self.seed_ = draw_seed(self.random_state)
        if self.random_state is None:  # an interrupted fit continues with its seed
            stored = stages.stored_seed()
            self.seed_ = self.seed_ if stored is None else stored
        self.input_scaling_ = Standardizer.of(X, weight)
        self.search_: pd.DataFrame | None = None
        self.first_fit_ = ()

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, **options: Any) -> Self:
        """Update the posterior with further rows; `options` are those of `_validate`."""
        is_first = not self.__sklearn_is_fitted__()
        self._check_parameters(is_further=not is_first)
        X, y, weight = self._validate(X, y, sample_weight, reset=is_first, **options)
        self._y_shape = y.shape[1:]
        if is_first:
            return self._fit_from_scratch(X, y, weight, max(len(X), SMALL_TABLE + 1))  # more come
        self.first_fit_ = ()
        training = self._training_options(is_further=True)
        rows, early_stopping = training.hold_out(self._prepare(X, y, weight))
        arguments = training.arguments(rows) | early_stopping
        arguments |= {"epochs": self.epochs, "sample_weight": rows.weight}
        del arguments["restarts"]
        self.posterior_ = update(self.posterior_, rows.x, rows.y, **arguments)
        raise_if_interrupted(self.posterior_.chains)
        return self

    def _check_parameters(self, *, is_further: bool) -> None:
        """Raise if a parameter is invalid, or differs from that of a fit that is continued."""
        check_parameters(self.get_params(deep=False))
        if is_further:
            for name, fitted in self._fitted_parameters().items():
                given = getattr(self, name)
                given = as_layers(name, given) if isinstance(fitted, tuple) else given
                if given != fitted:
                    raise ValueError(
                        f"`{name}` must stay {fitted!r} when a fit is continued by warm_start or "
                        f"partial_fit, got {given!r}: set it back, or fit with warm_start=False."
                    )

    def _fitted_parameters(self) -> dict[str, Any]:
        """Return the parameters that the fitted posterior fixes, with their values."""
        fixed = {"hidden": self.hidden_, "ard": self.ard_, "restarts": self.restarts_}
        return {name: fixed[name] for name in fixed if not isinstance(getattr(self, name), str)}

    def _predict(self, X: Any, n_draws: int, seed: int) -> Any:
        check_is_fitted(self)
        return self._predict_inputs(validate_inputs(self, X), n_draws, seed).indexed(index_of(X))

    def _predict_inputs(self, x: np.ndarray, n_draws: int, seed: int) -> Any:
        """Predict rows whose columns are encoded and checked."""
        return self.posterior_.predict(scale_inputs(x, self.input_scaling_), n_draws, seed)

    def _training_options(self, *, is_further: bool = False) -> TrainingOptions:
        whole = whole_numbers(self.get_params(deep=False))
        return TrainingOptions(
            epochs=whole["epochs"],
            batch_size=whole["batch_size"],
            lr=self.lr,
            restarts=self.restarts_,
            kl_weight=self._kl_weights(is_further),
            engine=self.engine,
            device=self.device,
            seed=self.seed_,
            progress=self.verbose,
            validation_fraction=self.validation_fraction if self.early_stopping else None,
            patience=whole["patience"] if self.early_stopping else None,
        )

    def _kl_weights(self, is_further: bool) -> float | tuple[float, ...]:
        if not isinstance(self.kl_weight, str):
            return float(self.kl_weight)
        return self.kl_weight_ if is_further else self._automatic_kl_weights()

    def _automatic_kl_weights(self) -> float | tuple[float, ...]:
        """Return the weight for ``kl_weight="auto"``: of all chains, or one for each."""
        return SINGLE_KL_WEIGHT

    def _network(self, likelihood: likelihoods.Likelihood) -> BayesianNetwork:
        return build_network(
            n_inputs(self),
            self.hidden_,
            self._n_outputs(likelihood),
            activation=self.activation,
            ard=self.ard_,
            prior=self.prior,
            likelihood=likelihood,
            seed=self.seed_,
        )

    @abstractmethod
    def _validate(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool, **options: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return validated data and weights, without rows of weight 0.

        With `reset`, set the attributes that depend on the columns.
        """

    @abstractmethod
    def _prepare(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> Rows:
        """Return validated data in the units of the network."""

    @abstractmethod
    def _stage_names(self, y: np.ndarray) -> tuple[str, ...]:
        """Return the names of the fits that `_set_up` and `_fit_stages` consist of, in order."""

    @abstractmethod
    def _fit_stages(self, rows: Rows, stages: Stages) -> Posterior:
        """Fit the posterior; set `likelihood_` unless `_set_up` has."""

    @abstractmethod
    def _n_outputs(self, likelihood: likelihoods.Likelihood) -> int:
        """Return the number of outputs that a likelihood needs."""

    @abstractmethod
    def _description(self) -> dict[str, Any]:
        """Return the plain data that this class stores in addition to the common ones."""

    @abstractmethod
    def _restore(self, description: Mapping[str, Any]) -> None:
        """Set the attributes from the plain data that `_description` returned."""
