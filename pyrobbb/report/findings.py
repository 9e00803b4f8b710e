"""Findings of a report: scores, permutation importance, uncertainty, diagnosis."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.display import count_of
from ..columns.encoding import Categorical, Column
from ..diagnostics import Check
from ..diagnostics.measurements import Measurement
from ..tables.yardsticks import (
    are_counts,
    constant_classes,
    constant_numbers,
    linear_classes,
    linear_numbers,
)
from .scores import Score, score_classes, score_numbers

if TYPE_CHECKING:
    import pandas as pd

    from ..tables.held_out import HeldOutScores
    from ..tables.schema import Schema

MAX_SAMPLED = 1000
"""Maximum number of rows for the diagnosis, and for results that need quantiles of the predictive
mixture, which are found by iteration. They are the same rows, so that their numbers agree."""
DIAGNOSIS_DRAWS = 200
PERMUTED_ROWS = 20_000
"""Total number of rows predicted for the permutation importance of all columns."""
GRID = 61
MAX_CATEGORIES = 12
LEVEL = 0.9

NEED_ROWS_OF_FIT = ("elbo", "scales", "khat", "loo")
"""Keys of the checks that are only meaningful on exactly the rows of the fit."""


@dataclass(frozen=True, eq=False)
class Effect:
    """The prediction over the range, or for the categories, of one column.

    Attributes
    ----------
    column : Numeric, Date or Categorical
    at : ndarray of shape (n,)
        Values of the column, or names of categories, the most frequent first.
    prediction : RegressionPrediction or ClassificationPrediction
        Predictions at these values, with typical values of all other columns.
    """

    column: Column
    at: np.ndarray
    prediction: Any


@dataclass(frozen=True, eq=False)
class Findings:
    """A fitted estimator and the rows of a table.

    Attributes
    ----------
    estimator : BBBRegressor or BBBClassifier
    schema : Schema
    frame : DataFrame
        The rows that have a target.
    x : ndarray of shape (n, n_inputs)
    y : ndarray of shape (n,)
        Numbers, or indices of classes.
    notes : tuple of str
        Remarks on the table.
    seed : int
        Seed of the draws and of sampled rows.
    held_out : HeldOutScores or None
        Scores of rows that fits were not made to.
    """

    estimator: Any
    schema: Schema
    frame: pd.DataFrame
    x: np.ndarray
    y: np.ndarray
    notes: tuple[str, ...]
    seed: int
    held_out: HeldOutScores | None = None

    @classmethod
    def of(
        cls,
        estimator: Any,
        schema: Schema,
        frame: pd.DataFrame,
        seed: int,
        held_out: HeldOutScores | None = None,
    ) -> Findings:
        """Encode the rows, and check that estimator and schema match."""
        is_classifier = hasattr(estimator, "classes_")
        if is_classifier != (schema.task == "classification"):
            raise ValueError(
                f"`estimator` must suit the task of `schema`, {schema.task}, got a "
                f"{type(estimator).__name__}: pass the estimator that was fitted to this table."
            )
        frame, n_dropped = schema.with_target(frame)
        if not len(frame):
            raise ValueError(
                f"`frame` must have a row with a target, got none in {schema.target_name!r}."
            )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = schema.encode(frame)
        notes = [*schema.notes, *(str(warning.message) for warning in caught)]
        if n_dropped:
            notes.append(f"Left out: {count_of(n_dropped, 'row')} without a target.")
        y = schema.target(frame)
        if is_classifier:
            index = np.searchsorted(estimator.classes_, y).clip(max=len(estimator.classes_) - 1)
            if not (estimator.classes_[index] == y).all():
                raise ValueError(
                    "`frame` must only contain classes that `estimator` was fitted to, got others."
                )
            y = index
        notes = list(dict.fromkeys(notes))
        findings = cls(estimator, schema, frame, x, y, tuple(notes), seed, held_out)
        if not is_classifier and findings.prediction.mean.ndim > 1:
            raise ValueError(
                f"`estimator` must predict one target, got "
                f"{findings.prediction.mean.shape[1]}: fit one estimator per target."
            )
        return findings

    @property
    def is_classification(self) -> bool:
        """Whether y is a class."""
        return self.schema.task == "classification"

    @property
    def n_fitted(self) -> int | None:
        """Number of rows per epoch of the fit; None if unknown or different between chains."""
        histories = [chain.history for chain in self.estimator.posterior_.chains]
        counts = {int(history.n_rows[history.epoch == 0].sum()) for history in histories}
        return (counts.pop() or None) if len(counts) == 1 else None

    @property
    def is_of_fit(self) -> bool:
        """Whether the table may be that of the fit: it has as many rows."""
        return len(self.y) == self.n_fitted

    @cached_property
    def prediction(self) -> Any:
        """The prediction of all rows."""
        return self.estimator.predict_distribution(self.x)

    @cached_property
    def sampled(self) -> np.ndarray:
        """Positions of the rows for expensive results: all, or a random sample."""
        return self._sample(MAX_SAMPLED)

    @cached_property
    def sampled_prediction(self) -> Any:
        """The prediction of the sampled rows."""
        if len(self.sampled) == len(self.y):
            return self.prediction
        return self.estimator.predict_distribution(self.x[self.sampled])

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """The scores of the predictions, and of yardsticks.

        The linear one is fitted to the rows of the table, and left out if they are not those of the
        fit.
        """
        y, n = self.y, len(self.y)
        if self.is_classification:
            n_classes = len(self.estimator.classes_)
            compared = {"model": self.prediction}
            if self.is_of_fit and len(np.unique(y)) > 1:
                compared["linear"] = linear_classes(self.x, y, self.x, n_classes)
            return score_classes({**compared, "constant": constant_classes(y, n, n_classes)}, y)
        is_count = are_counts(self.estimator.likelihood_)
        mean, variance = float(y.mean()), float(y.var())
        compared = {"model": self.prediction}
        if self.is_of_fit:
            compared["linear"] = linear_numbers(self.x, y, self.x, is_count=is_count)
        compared["constant"] = constant_numbers(mean, variance, n, is_count=is_count)
        sampled = {name: prediction[self.sampled] for name, prediction in compared.items()}
        sampled["model"] = self.sampled_prediction
        return score_numbers(compared, sampled, y, y[self.sampled])

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """Total uncertainty of each row: standard deviation, or entropy."""
        return self.prediction.entropy if self.is_classification else self.prediction.sd

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Aleatoric and epistemic part of the variance or entropy of each row."""
        if self.is_classification:
            return self.prediction.expected_entropy, self.prediction.mutual_information
        return self.prediction.aleatoric_sd**2, self.prediction.epistemic_sd**2

    @property
    def epistemic_share(self) -> float:
        """Epistemic share of the variance or entropy, over all rows."""
        aleatoric, epistemic = (part.sum() for part in self.parts)
        return float(epistemic / max(aleatoric + epistemic, 1e-300))

    @cached_property
    def importance(self) -> dict[str, float]:
        """Permutation importance of each column, in descending order: the change in predictions."""
        rng = np.random.default_rng(self.seed)
        n_rows = int(np.clip(PERMUTED_ROWS // len(self.schema.columns), 20, 500))
        rows = self._sample(n_rows)
        x = self.x[rows]
        before = self._centre(x)
        importance = {}
        for column, inputs in self._inputs():
            permuted = x.copy()
            permuted[:, inputs] = x[rng.permutation(len(x))][:, inputs]
            change = self._centre(permuted) - before
            importance[column.name] = float(
                0.5 * np.abs(change).sum(1).mean()
                if self.is_classification
                else np.sqrt((change**2).mean())
            )
        return dict(sorted(importance.items(), key=lambda item: -item[1]))

    def effects(self, n: int = 3) -> list[Effect]:
        """Predict over the categories of each of the n most important categorical columns."""
        effects: list[Effect] = []
        for column, inputs in self._by_importance():
            if len(effects) == n or not isinstance(column, Categorical):
                continue
            order = np.argsort(-self.x[:, inputs].sum(0), kind="stable")[:MAX_CATEGORIES]
            x = np.repeat(self._typical[None], len(order), 0)
            x[:, inputs] = np.eye(len(column.inputs))[order]
            names = [*column.categories, *(["(missing)"] if column.has_missing else [])]
            at = np.array(names, dtype=object)[order]
            effects.append(Effect(column, at, self.estimator.predict_distribution(x)))
        return effects

    def curves(self, n: int = 3) -> list[Effect]:
        """Predict over the range of each of the n most important numeric columns."""
        curves: list[Effect] = []
        for column, inputs in self._by_importance():
            if len(curves) == n or isinstance(column, Categorical):
                continue
            x = np.repeat(self._typical[None], GRID, 0)
            values = self.x[:, inputs.start]
            first, last = np.quantile(values, [0.01, 0.99])
            at = np.linspace(first, last, GRID)
            if at[0] == at[-1]:
                continue
            x[:, inputs.start] = at
            curves.append(Effect(column, at, self.estimator.predict_distribution(x)))
        return curves

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The checks of the diagnosis; some are only measured on exactly the rows of the fit."""
        rows = self.sampled
        is_of_fit = self.is_of_fit and len(rows) == len(self.y)
        target = self.estimator.classes_[self.y] if self.is_classification else self.y
        diagnosis = self.estimator.diagnose(
            self.x[rows],
            target[rows],
            n_draws=DIAGNOSIS_DRAWS,
            seed=self.seed,
            data_name=None if is_of_fit else "rows of this report",
        )
        return tuple(
            check
            if is_of_fit or check.key not in NEED_ROWS_OF_FIT
            else Check.of(Measurement(check.key, "other rows"))
            for check in diagnosis.checks
            if check.key != "scores"  # those of all rows are in a section of their own
        )

    def _sample(self, n: int) -> np.ndarray:
        n_rows = len(self.y)
        if n_rows <= n:
            return np.arange(n_rows)
        return np.sort(np.random.default_rng(self.seed).choice(n_rows, n, replace=False))

    def _inputs(self) -> Iterator[tuple[Column, slice]]:
        start = 0
        for column in self.schema.columns:
            yield column, slice(start, start + len(column.inputs))
            start += len(column.inputs)

    def _by_importance(self) -> list[tuple[Column, slice]]:
        rank = {name: i for i, name in enumerate(self.importance)}
        return sorted(self._inputs(), key=lambda item: rank[item[0].name])

    def _centre(self, x: np.ndarray) -> np.ndarray:
        prediction = self.estimator.predict_distribution(x)
        return prediction.probs if self.is_classification else prediction.mean

    @cached_property
    def _typical(self) -> np.ndarray:
        """A row of medians and most frequent categories."""
        row = np.median(self.x, axis=0)
        for column, inputs in self._inputs():
            row[inputs.start + 1 : inputs.stop] = 0.0  # not missing; centre of cycles
            if isinstance(column, Categorical):
                row[inputs] = 0.0
                shares = self.x[:, inputs].mean(0)
                # Otherwise, most rows are of rare categories, which have no input.
                if shares.max() >= 1 - shares.sum():
                    row[inputs.start + shares.argmax()] = 1.0
        return row
