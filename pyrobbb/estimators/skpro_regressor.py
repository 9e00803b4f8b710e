"""BBBProbaRegressor: `BBBRegressor` as a probabilistic regressor of skpro (extra `skpro`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import clone

from ..prediction import RegressionPrediction
from .regressor import BBBRegressor

try:
    from skpro.distributions.base import BaseDistribution
    from skpro.regression.base import BaseProbaRegressor
except ImportError as error:
    message = f'BBBProbaRegressor needs skpro: pip install "pyrobbb[skpro]" ({error}).'
    raise ImportError(message) from error


class BBBProbaRegressor(BaseProbaRegressor):
    """A `BBBRegressor` with the interface of skpro: distributions, intervals, quantiles, update.

    Parameters
    ----------
    regressor : BBBRegressor, optional
        A clone of it is fitted: `regressor_`. None: ``BBBRegressor()``.

    Examples
    --------
    >>> from pyrobbb import BBBRegressor
    >>> from pyrobbb.estimators.skpro_regressor import BBBProbaRegressor
    >>> BBBProbaRegressor(BBBRegressor(restarts=2)).get_params()["regressor__restarts"]
    2
    """

    _tags = {  # noqa: RUF012  # skpro's own form
        "capability:missing": False,
        "capability:multioutput": True,
        "capability:update": True,
    }

    def __init__(self, regressor: BBBRegressor | None = None) -> None:
        self.regressor = regressor
        super().__init__()

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return parameters with which skpro's tests fit in a fraction of a second."""
        quick = BBBRegressor([5], epochs=5, restarts=1, n_draws=20, random_state=0)
        return [{"regressor": quick}, {"regressor": clone(quick).set_params(likelihood="gaussian")}]

    def _fit(self, X: pd.DataFrame, y: pd.DataFrame) -> Self:
        self._columns = y.columns
        self.regressor_ = BBBRegressor() if self.regressor is None else clone(self.regressor)
        self.regressor_.fit(_named(X), y.to_numpy())
        return self

    def _update(self, X: pd.DataFrame, y: pd.DataFrame) -> Self:
        self.regressor_.partial_fit(_named(X), y.to_numpy())
        return self

    def _predict(self, X: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(self.regressor_.predict(_named(X)), X.index, self._columns)

    def _predict_proba(self, X: pd.DataFrame) -> PredictedColumns:
        whole = self.regressor_.predict_distribution(_named(X))
        columns = [whole.column(j) for j in range(len(self._columns))]
        return PredictedColumns(columns, X.index, self._columns)


def _named(X: pd.DataFrame) -> pd.DataFrame:
    return X.set_axis(X.columns.astype(str), axis=1)  # as scikit-learn requires


class PredictedColumns(BaseDistribution):
    """The predictive distributions of the columns of y: mixtures over the draws."""

    _tags = {  # noqa: RUF012
        "capabilities:exact": ["mean", "var", "cdf", "ppf", "pdf", "log_pdf"],
        "capabilities:approx": ["energy", "pdfnorm"],
        "distr:paramtype": "nonparametric",
    }

    def __init__(self, predictions: list[RegressionPrediction], index: Any, columns: Any) -> None:
        self.predictions = predictions
        super().__init__(index, columns)

    def _iloc(self, rowidx: Any = None, colidx: Any = None) -> PredictedColumns:
        rows = slice(None) if rowidx is None else np.atleast_1d(rowidx)
        of_columns = np.arange(self._shape[1])
        kept = of_columns if colidx is None else np.atleast_1d(of_columns[colidx])
        predictions = [self.predictions[j][rows] for j in kept]
        return PredictedColumns(predictions, self.index[rows], self.columns[kept])

    def _by_column(self, function: Callable[..., Any], *values: np.ndarray) -> np.ndarray:
        each = zip(self.predictions, *(value.T for value in values), strict=True)
        return np.stack([np.asarray(function(*one), dtype=float) for one in each], -1)

    def _mean(self) -> np.ndarray:
        return self._by_column(lambda prediction: prediction.mean)

    def _var(self) -> np.ndarray:
        return self._by_column(lambda prediction: prediction.sd**2)

    def _cdf(self, x: np.ndarray) -> np.ndarray:
        return self._by_column(RegressionPrediction.cdf, x)

    def _log_pdf(self, x: np.ndarray) -> np.ndarray:
        return self._by_column(RegressionPrediction.log_prob, x)

    def _pdf(self, x: np.ndarray) -> np.ndarray:
        return np.exp(self._log_pdf(x))

    def _ppf(self, p: np.ndarray) -> np.ndarray:
        return self._by_column(_quantiles, p)

    def _sample(self, n_samples: int | None = None) -> pd.DataFrame:
        n, rng = n_samples or 1, np.random.default_rng()
        values = self._by_column(lambda prediction: _samples(prediction, n, rng))
        index = self.index
        if n_samples is not None:
            index = pd.MultiIndex.from_product([range(n), index])
        return pd.DataFrame(values.reshape(-1, len(self.columns)), index, self.columns)


def _quantiles(prediction: RegressionPrediction, p: np.ndarray) -> np.ndarray:
    levels, which = np.unique(p.clip(1e-12, 1 - 1e-12), return_inverse=True)
    return prediction.quantile(levels)[which, np.arange(len(p))]


def _samples(prediction: RegressionPrediction, n: int, rng: np.random.Generator) -> np.ndarray:
    drawn = prediction.sample(int(rng.integers(2**31)))  # one of each draw of the weights
    while len(drawn) < n:
        drawn = np.concatenate([drawn, prediction.sample(int(rng.integers(2**31)))])
    return rng.permuted(drawn, axis=0)[:n]
