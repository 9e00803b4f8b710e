"""BBBClassifier: classification by a Bayesian neural network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from .. import likelihoods
from ..posterior.posterior import Posterior
from ..prediction import ClassificationPrediction
from . import storage
from .base import BBBEstimator
from .labels import as_labels, class_indices, known_classes, list_labels
from .preparation import Rows, drop_zero_weights, numeric_array, plain_array, prepare
from .stages import Stages, fit_once
from .stored_parameters import labels_from_json


class BBBClassifier(ClassifierMixin, BBBEstimator):
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
        The sorted labels, of any type.
    posterior_ : Posterior
        Fitted to standardised inputs, with class indices as y.
    hidden_ : tuple of int
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
    """

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
            Predictions of class indices, in the order of ``classes_``.
        """
        return super().predict_distribution(X)

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
        X, y = numeric_array("X", X), plain_array("y", y)
        labels = None if y is None else as_labels("y", y)
        X, y = validate_data(self, X, labels, reset=reset, dtype=np.float64)
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

    def _stage_names(self, n_rows: int) -> tuple[str, ...]:
        return ("fit",)

    def _fit_stages(self, rows: Rows, stages: Stages) -> Posterior:
        self.likelihood_ = likelihoods.Categorical()
        network, options = self._network(self.likelihood_), self._training_options()
        return fit_once(network, rows, options, checkpoint=stages.folder("fit"))

    def _n_outputs(self, likelihood: likelihoods.Likelihood) -> int:
        return len(self.classes_)

    def _description(self) -> dict[str, Any]:
        return {"classes": storage.labels_to_json(self.classes_)}

    def _restore(self, description: Mapping[str, Any]) -> None:
        self.classes_ = labels_from_json(description["classes"])
