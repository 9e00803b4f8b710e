"""BBBClassifier: classification by a Bayesian neural network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from .. import likelihoods
from .._core.arrays import check_positive, check_probability
from ..posterior.posterior import Posterior
from ..posterior.stacking import log_density_by_chain
from ..prediction import Calibration, ClassificationPrediction, set_levels
from . import storage
from .base import BBBEstimator
from .conformal import (
    calibrate_classes,
    fit_and_calibrate,
    n_calibration_rows,
    uniform_by_row,
)
from .inputs import validate_inputs, validate_rows
from .labels import as_labels, class_indices, known_classes, list_labels
from .loss_curves import loss_curves
from .preparation import Rows, drop_zero_weights, plain_array, prepare
from .search import stack_first_fit
from .stages import MIN_ROWS_TO_STACK_CLASSES, Stages, spread_kl_weights
from .stored_parameters import calibration_from_json, labels_from_json


class BBBClassifier(ClassifierMixin, BBBEstimator):
    """Classification by a Bayesian neural network, for scikit-learn.

    The defaults are meant to need no tuning on tables of 100 to 100,000 rows.

    Parameters
    ----------
    hidden, activation, ard, prior, epochs, batch_size, lr, restarts, n_draws, engine, device
        As for `BBBRegressor`, but by default there are no learned scales and four restarts.
    kl_weight : float or "auto"
        Factor on the KL divergence from the prior; 1 as in Bayes' rule. ``"auto"``: 0.7; with at
        least 100 held-out rows, each restart has another one, from 0.25 to 1, and
        `pyrobbb.stack` weights them by these rows.
    calibration : float
        Fraction of the rows, in [0, 1), held out for the temperature and for the sets of
        `predict_set`; 24 to 1,000 rows, or a quarter of fewer than 96. A second fit to all rows
        then continues from the first, with a quarter of the epochs and of `lr`. With 0,
        probabilities and sets are those of the predictive mixture. With too few rows (fewer than 90
        for 0.1), none are held out.
    early_stopping, validation_fraction, patience, columns, warm_start, random_state, checkpoint, \
verbose
        As for `BBBRegressor`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted labels, of any type.
    posterior_ : Posterior
        Fitted to standardised inputs, with class indices as y.
    temperature_ : float
        Probabilities are those of the predictive mixture to the power of 1 / `temperature_`,
        normalised. 1 if no other value lowers the log loss of the held-out rows by more than two
        standard errors (one, for a value above 1), or without held-out rows.
    calibration_ : Calibration or None
        Calibration of the sets. None with ``calibration=0``. Temperature and calibration are those
        of the first fit; `warm_start` and `partial_fit` do not change them.
    columns_ : ColumnEncoder or None
        As for `BBBRegressor`.
    hidden_, ard_, restarts_ : tuple of int, bool, int
    kl_weight_ : float, or tuple of float if those of the chains differ
    search_ : DataFrame or None
        Mean log probability of the held-out rows, ``log_density``, by KL weight; as for
        `BBBRegressor`. None if all chains have the same.
    first_fit_ : tuple of loss curves
        Losses of each chain of the fit without the held-out rows, before that of ``posterior_``:
        ``nelbo``, ``nll`` and ``kl``, in nats per row, by ``epoch``.
    likelihood_ : callable
    input_scaling_ : Standardizer
    seed_ : int
        Seed drawn from `random_state`.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X was a DataFrame.

    Examples
    --------
    >>> model = BBBClassifier(random_state=0).fit(X, y)
    >>> model.predict_proba(X_new)
    >>> model.decision_uncertainty(X_new)  # epistemic, in nats
    >>> [model.classes_[row] for row in model.predict_set(X_new, 0.9)]  # labels of each set
    """

    temperature_: float
    calibration_: Calibration | None

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, shape (n,)."""
        most_probable = self.predict_distribution(X).probs.argmax(1)
        return self.classes_[most_probable]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, shape (n, n_classes), in the order of ``classes_``.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        """
        return self.predict_distribution(X).probs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def predict_distribution(self, X: Any) -> ClassificationPrediction:
        """Return the predictive distribution of each row.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ClassificationPrediction
            Predictions of class indices, in the order of ``classes_``, with `temperature_`.
        """
        return super().predict_distribution(X)

    def predict_set(self, X: Any, level: float = 0.9) -> np.ndarray:
        """Return the classes of each row that may be the right one, by split conformal prediction.

        The set of a new row contains its class with a probability of at least `level`, whatever the
        quality of the fit, if the row and the held-out rows are exchangeable (apart from the
        refit, which includes the held-out rows, and from the weights of stacked chains, which they
        determine). This holds on average over rows, not for each class or for each row. Sets of
        difficult rows are larger. The last class of a set is included at random, with a probability
        that makes the coverage exact; a set may be empty where the model is certain. The randomness
        depends on `random_state` and on the row.

        If there are too few held-out rows for a level (fewer than 9 for 0.9), or for any, the sets
        hold all classes. With ``calibration=0``, they are those of the predictive mixture, whose
        coverage is not guaranteed.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        level : float
            Probability in (0, 1).

        Returns
        -------
        ndarray of shape (n, n_classes), bool
            Whether the set of each row contains each class, in the order of ``classes_``. For the
            labels in the set of row i: ``model.classes_[sets[i]]``.

        References
        ----------
        Romano, Sesia and Candes (2020), "Classification with valid and adaptive coverage".
        """
        check_probability("level", level)
        check_is_fitted(self)
        x = validate_inputs(self, X)
        probs = super()._predict_inputs(x, self.n_draws, self.seed_).probs
        levels = set_levels(probs, uniform_by_row(x, self.seed_))
        return levels <= (
            level if self.calibration_ is None else self.calibration_.threshold(level)
        )

    def decision_uncertainty(self, X: Any) -> np.ndarray:
        """Return the epistemic uncertainty: the mutual information between class and weights.

        More data would reduce this part of the uncertainty.

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
        """Update the posterior with further rows, with the current posterior as the prior.

        Earlier rows are not needed. The first call determines the scaling of the data.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,)
        classes : array-like of shape (n_classes,), optional
            All classes that will occur; only the first call needs them. None: those of y.
        sample_weight : array-like of shape (n,), optional

        References
        ----------
        Broderick et al. (2013), "Streaming Variational Bayes".
        """
        with self._unchanged_on_error():
            return self._partial_fit(X, y, sample_weight, classes=classes)

    def _validate(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        reset: bool,
        classes: Any = None,
        **options: Any,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        y = plain_array("y", y)
        X, y = validate_rows(self, X, None if y is None else as_labels("y", y), reset=reset)
        check_classification_targets(y)
        X, y, weight = drop_zero_weights(X, column_or_1d(y), sample_weight)
        if classes is not None:
            classes = known_classes(classes)
        if reset:
            self.classes_ = np.unique(y) if classes is None else classes
        elif classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"`classes` must be those of the first call, {list_labels(self.classes_)}, got "
                f"{list_labels(classes)}."
            )
        if len(self.classes_) < 2:
            raise ValueError(
                f"`y` must hold at least two classes, got one class: {list_labels(self.classes_)}."
            )
        return X, class_indices(y, self.classes_), weight

    def _prepare(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> Rows:
        return prepare(X, y, weight, input_scaling=self.input_scaling_, stratify=True)

    def _stage_names(self, y: np.ndarray) -> tuple[str, ...]:
        n_held = n_calibration_rows(self.calibration, len(y), len(self.classes_))
        return ("fit", "refit") if n_held else ("fit",)

    def _fit_stages(self, rows: Rows, stages: Stages) -> Posterior:
        """Fit without the held-out rows, calibrate, and refit with them."""
        options = self._training_options()
        n_held = 0
        if "refit" in stages.names:
            n_held = n_calibration_rows(self.calibration, len(rows), len(self.classes_))
        if isinstance(self.kl_weight, str) and n_held >= MIN_ROWS_TO_STACK_CLASSES:
            options = dataclasses.replace(options, kl_weight=spread_kl_weights(options.restarts))
        options.n_validation_rows(len(rows) - n_held, rows.n_classes)  # raises before the first fit
        self.likelihood_ = likelihoods.Categorical()
        self.temperature_ = 1.0
        self.calibration_ = Calibration.of([]) if self.calibration > 0 else None
        return fit_and_calibrate(
            lambda: self._network(self.likelihood_),
            rows,
            options,
            stages,
            n_held,
            self._calibrate,
        )

    def _calibrate(self, posterior: Posterior, held: Rows) -> Posterior:
        """Weight the chains if they differ in their KL weights, then calibrate their mixture."""
        self.first_fit_ = loss_curves(posterior.chains)
        density = log_density_by_chain(posterior, held.x, held.y, self.n_draws, self.seed_)
        posterior, self.search_ = stack_first_fit(
            posterior, density, held.weight, "categorical", self.hidden_, self.search_
        )
        self.temperature_, self.calibration_ = calibrate_classes(
            posterior, held, self.n_draws, self.seed_
        )
        return posterior

    def _predict_inputs(self, x: np.ndarray, n_draws: int, seed: int) -> ClassificationPrediction:
        prediction = super()._predict_inputs(x, n_draws, seed).tempered(self.temperature_)
        return prediction.labelled(self.classes_)

    def _n_outputs(self, likelihood: likelihoods.Likelihood) -> int:
        return len(self.classes_)

    def _description(self) -> dict[str, Any]:
        return {
            "classes": storage.labels_to_json(self.classes_),
            "temperature": self.temperature_,
            "calibration": storage.calibration_to_json(self.calibration_),
        }

    def _restore(self, description: Mapping[str, Any]) -> None:
        self.classes_ = labels_from_json(description["classes"])
        self.temperature_ = description.get("temperature", 1.0)
        check_positive("temperature", self.temperature_)
        self.calibration_ = calibration_from_json(description.get("calibration"))
