"""A fitted estimator with the schema of the table it was fitted to."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..columns.errors import TableError, prefix_errors
from ..estimators import BBBClassifier, BBBRegressor
from ..estimators import storage as estimator_storage
from ..posterior.posterior import Posterior
from .held_out import HeldOutScores, score_prediction
from .schema import Schema

__all__ = ["TableModel"]


@dataclass(frozen=True, eq=False)
class TableModel:
    """A fitted estimator with the schema of the table it was fitted to.

    Attributes
    ----------
    estimator : BBBRegressor or BBBClassifier
    schema : Schema
    held_out : scores of held-out rows, or None
        Of fits to the other rows, if they were requested: ``model`` and ``linear`` map the name of
        each score to its mean over the folds, for the network and for a ridge or logistic
        regression of the same inputs; ``standard_error`` maps it to that of the network's mean.
    """

    estimator: BBBRegressor | BBBClassifier
    schema: Schema
    held_out: HeldOutScores | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TableModel:
        """Read a model from the folder that `save` has written.

        Raises
        ------
        FileNotFoundError, ValueError
            If the folder does not exist, is damaged, or contains no estimator.
        TableError
            If the estimator was not fitted to a table.
        """
        estimator, extra = estimator_storage.read(path, [BBBRegressor, BBBClassifier])
        if "table" not in extra:
            raise TableError(
                "was not made by `pyrobbb fit`: the columns it needs are unknown. Use it from "
                "Python, or fit a model with `pyrobbb fit`.",
                os.fspath(path),
            )
        with prefix_errors(path):
            try:
                schema = Schema.from_dict(extra["table"])
                stored = extra.get("held_out")
                held_out = None if stored is None else HeldOutScores.from_dict(stored)
            except ValueError as error:
                raise TableError(f"is damaged. {error}") from error
            is_classifier = isinstance(estimator, BBBClassifier)
            if (
                not isinstance(estimator, BBBRegressor | BBBClassifier)
                or is_classifier != (schema.task == "classification")
                or (is_classifier and estimator.classes_.tolist() != list(schema.classes))
                or len(schema.inputs) != estimator.n_features_in_
            ):
                raise TableError("is damaged: its schema and its network do not match.")
        return cls(estimator, schema, held_out)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a folder, from which the estimator's `load` can read too."""
        extra = {"table": self.schema.to_dict()}
        if self.held_out is not None:
            extra["held_out"] = self.held_out.to_dict()
        self.estimator.save(path, extra=extra)

    def with_posterior(self, posterior: Posterior) -> TableModel:
        """Return a copy of the model with another posterior of the same network."""
        estimator = copy.copy(self.estimator)
        estimator.posterior_ = posterior
        return TableModel(estimator, self.schema)

    def predict(self, x: np.ndarray, levels: Sequence[float]) -> dict[str, np.ndarray]:
        """Return the columns of a table of predictions.

        Parameters
        ----------
        x : ndarray of shape (n, n_inputs)
            Inputs, as encoded by the schema.
        levels : sequence of float
            Probabilities of the quantiles of a regression.

        Returns
        -------
        dict of str to ndarray of shape (n,)
            The columns of `RegressionPrediction.to_frame` or `ClassificationPrediction.to_frame`.
        """
        prediction: Any = self.estimator.predict_distribution(x)
        if isinstance(self.estimator, BBBRegressor):
            frame = prediction.to_frame(levels)
        else:
            frame = prediction.to_frame()
        return {name: column.to_numpy() for name, column in frame.items()}

    def scores(self, x: np.ndarray, y: np.ndarray) -> Mapping[str, float]:
        """Return scores of the predictions for rows whose target is known.

        Parameters
        ----------
        x : ndarray of shape (n, n_inputs)
            Inputs, as encoded by the schema.
        y : ndarray of shape (n,)
            The target, as returned by `Schema.target`.

        Returns
        -------
        mapping of str to float
            For a regression ``RMSE``, ``R2``, ``NLL`` (in nats per row) and ``90 % coverage``; for
            a classification ``error``, ``NLL``, ``Brier`` and ``AUC``. A score that is not defined
            for these rows, such as R2 of a constant y, is left out.
        """
        prediction: Any = self.estimator.predict_distribution(x)
        if isinstance(self.estimator, BBBClassifier):
            y = np.searchsorted(self.estimator.classes_, y)
        return score_prediction(prediction, y)
