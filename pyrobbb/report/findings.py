"""What a report tells of a fit, as numbers: scores, what predictions lean on, doubt, verdicts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diagnostics.checks import Check
from ..likelihoods import NegativeBinomial, Poisson
from ..tables.encoding import Categorical, Column, Numeric
from .scores import Score, of_classes, of_numbers

if TYPE_CHECKING:
    import pandas as pd

    from ..tables.schema import Schema

MOST_CHOSEN = 1000
"""Rows for what takes quantiles of the predictive mixture, each found by iteration."""
MOST_DIAGNOSED = 2000
DIAGNOSIS_DRAWS = 200
SHUFFLED_ROWS = 20_000
"""Rows that are predicted, all columns together, to see what predictions lean on."""
GRID = 61
LEVEL = 0.9

OF_THE_FIT = ("ELBO", "k-hat of the weights", "PSIS-LOO")
"""Checks that mean nothing unless the rows are those of the fit, all of them."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What is predicted while one column goes through its range.

    Attributes
    ----------
    column : Numeric
    at : ndarray of shape (n,)
    prediction : RegressionPrediction or ClassificationPrediction
        Of rows that are typical in all other columns.
    """

    column: Numeric
    at: np.ndarray
    prediction: Any


@dataclass(frozen=True, eq=False)
class Findings:
    """A fitted estimator beside the rows of a table.

    Attributes
    ----------
    estimator : BBBRegressor or BBBClassifier
    schema : Schema
    frame : DataFrame
        The rows that have a target.
    x : ndarray of shape (n, n_inputs)
    y : ndarray of shape (n,)
        Numbers, or the index of the class.
    notes : tuple of str
        About the table.
    seed : int
        Of all that is drawn here.
    """

    estimator: Any
    schema: Schema
    frame: pd.DataFrame
    x: np.ndarray
    y: np.ndarray
    notes: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, estimator: Any, schema: Schema, frame: pd.DataFrame, seed: int) -> Findings:
        """Take the rows apart, and see that estimator and schema are of the same kind."""
        is_classifier = hasattr(estimator, "classes_")
        if is_classifier != (schema.task == "classification"):
            raise ValueError(
                f"`estimator` must suit the task of `schema`, {schema.task}, got a "
                f"{type(estimator).__name__}: pass the estimator that was fitted to this table."
            )
        frame, n_left_out = schema.with_target(frame)
        if not len(frame):
            raise ValueError(f"`frame` has no row with a target {schema.target_name!r}.")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            x = schema.encode(frame)
        notes = [*schema.notes, *(str(warning.message) for warning in told)]
        if n_left_out:
            notes.append(f"{n_left_out} of the rows given have no target, and are left out here.")
        y = schema.target(frame)
        if is_classifier:
            index = np.searchsorted(estimator.classes_, y).clip(max=len(estimator.classes_) - 1)
            if not (estimator.classes_[index] == y).all():
                raise ValueError("`frame` holds classes that `estimator` was not fitted to.")
            y = index
        found = cls(estimator, schema, frame, x, y, tuple(dict.fromkeys(notes)), seed)
        if not is_classifier and found.prediction.mean.ndim > 1:
            raise ValueError(
                f"`estimator` must predict one target, got {found.prediction.mean.shape[1]}: fit "
                "and report on each alone."
            )
        return found

    @property
    def is_classification(self) -> bool:
        """Whether y is a class."""
        return self.schema.task == "classification"

    @property
    def n_fitted(self) -> int | None:
        """Rows that the fit saw in an epoch; None if that is not known."""
        history = self.estimator.posterior_.chains[0].history
        return int(history.n_rows[history.epoch == 0].sum()) or None

    @cached_property
    def prediction(self) -> Any:
        """The prediction of all rows."""
        return self.estimator.predict_distribution(self.x)

    @cached_property
    def chosen(self) -> np.ndarray:
        """Positions of the rows for what takes long: all, or some that are drawn."""
        return self._some(MOST_CHOSEN)

    @cached_property
    def chosen_prediction(self) -> Any:
        """The prediction of the chosen rows."""
        if len(self.chosen) == len(self.y):
            return self.prediction
        return self.estimator.predict_distribution(self.x[self.chosen])

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """What predictions are worth."""
        if self.is_classification:
            return of_classes(self.prediction, self.y, len(self.estimator.classes_))
        return of_numbers(
            self.prediction,
            self.y,
            self.chosen_prediction,
            self.chosen,
            is_count=isinstance(self.estimator.likelihood_, Poisson | NegativeBinomial),
        )

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """All uncertainty of each row: standard deviation, or entropy."""
        return self.prediction.entropy if self.is_classification else self.prediction.sd

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Noise and doubt of each row, which sum to all: of the variance, or of the entropy."""
        if self.is_classification:
            return self.prediction.expected_entropy, self.prediction.mutual_information
        return self.prediction.aleatoric_sd**2, self.prediction.epistemic_sd**2

    @property
    def doubt_share(self) -> float:
        """Doubt as a share of all uncertainty, over all rows."""
        noise, doubt = (part.sum() for part in self.parts)
        return float(doubt / max(noise + doubt, 1e-300))

    @cached_property
    def influence(self) -> dict[str, float]:
        """By how much predictions move when a column is shuffled, the largest first."""
        rng = np.random.default_rng(self.seed)
        n_rows = int(np.clip(SHUFFLED_ROWS // len(self.schema.columns), 20, 500))
        rows = self._some(n_rows)
        x = self.x[rows]
        before = self._centre(x)
        moved = {}
        for column, inputs in self._inputs():
            shuffled = x.copy()
            shuffled[:, inputs] = x[rng.permutation(len(x))][:, inputs]
            change = self._centre(shuffled) - before
            moved[column.name] = float(
                0.5 * np.abs(change).sum(1).mean()
                if self.is_classification
                else np.sqrt((change**2).mean())
            )
        return dict(sorted(moved.items(), key=lambda own: -own[1]))

    def curves(self, n: int = 3) -> list[Curve]:
        """Let each of the n numeric columns with most influence go through its range."""
        rank = {name: i for i, name in enumerate(self.influence)}
        found: list[Curve] = []
        for column, inputs in sorted(self._inputs(), key=lambda own: rank[own[0].name]):
            if len(found) == n or not isinstance(column, Numeric):
                continue
            x = np.repeat(self._typical[None], GRID, 0)
            values = self.x[:, inputs.start]
            first, last = np.quantile(values, [0.01, 0.99])
            at = np.linspace(first, last, GRID)
            if at[0] == at[-1]:
                continue
            x[:, inputs] = 0.0  # what follows says that the number is missing
            x[:, inputs.start] = at
            found.append(Curve(column, at, self.estimator.predict_distribution(x)))
        return found

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The diagnosis; without what these rows cannot tell, if they are not those of the fit."""
        rows = self._some(MOST_DIAGNOSED)
        target = self.estimator.classes_[self.y] if self.is_classification else self.y
        diagnosis = self.estimator.diagnose(
            self.x[rows], target[rows], n_draws=DIAGNOSIS_DRAWS, seed=self.seed
        )
        if len(rows) == len(self.y) == self.n_fitted:
            return diagnosis.checks
        unknown = "It needs the rows of the fit, all of them and no others."
        advice = "Run pyrobbb diagnose on the table of the fit."
        return tuple(
            Check(own.name, "-", "not measured", unknown, advice)
            if own.name in OF_THE_FIT
            else dataclasses.replace(
                own,
                value=own.value.replace("data of the fit", "rows given"),
                meaning=own.meaning.replace("data of the fit", "rows given"),
            )
            for own in diagnosis.checks
        )

    @property
    def n_diagnosed(self) -> int:
        """Rows that the diagnosis looks at."""
        return min(len(self.y), MOST_DIAGNOSED)

    def _some(self, n: int) -> np.ndarray:
        n_rows = len(self.y)
        if n_rows <= n:
            return np.arange(n_rows)
        return np.sort(np.random.default_rng(self.seed).choice(n_rows, n, replace=False))

    def _inputs(self) -> Iterator[tuple[Column, slice]]:
        start = 0
        for column in self.schema.columns:
            yield column, slice(start, start + len(column.inputs))
            start += len(column.inputs)

    def _centre(self, x: np.ndarray) -> np.ndarray:
        prediction = self.estimator.predict_distribution(x)
        return prediction.probs if self.is_classification else prediction.mean

    @cached_property
    def _typical(self) -> np.ndarray:
        """A row of medians and of most frequent categories."""
        row = np.median(self.x, axis=0)
        for column, inputs in self._inputs():
            row[inputs.start + 1 : inputs.stop] = 0.0  # the number is there
            if isinstance(column, Categorical):
                row[inputs] = 0.0
                shares = self.x[:, inputs].mean(0)
                if shares.max() >= 1 - shares.sum():  # else the rare ones, which have no input
                    row[inputs.start + shares.argmax()] = 1.0
        return row
