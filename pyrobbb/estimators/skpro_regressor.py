"""BBBProbaRegressor: `BBBRegressor` as a probabilistic regressor of skpro (extra `skpro`)."""

from __future__ import annotations

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
    raise ImportError(
        f'BBBProbaRegressor needs skpro: pip install "pyrobbb[skpro]" ({error}).'
    ) from error


class BBBProbaRegressor(BaseProbaRegressor):
    """A `BBBRegressor` with the interface of skpro: distributions, intervals, quantiles, update.

    Parameters
    ----------
    regressor : BBBRegressor, optional
        Cloned before it is fitted. None: ``BBBRegressor()``.

    Attributes
    ----------
    regressor_ : BBBRegressor
        The fitted estimator.

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
        regressor = BBBRegressor() if self.regressor is None else clone(self.regressor)
        self._columns = y.columns
        self.regressor_ = regressor.fit(_named(X), y.to_numpy())
        return self

    def _update(self, X: pd.DataFrame, y: pd.DataFrame) -> Self:
        self.regressor_.partial_fit(_named(X), y.to_numpy())
        return self

    def _predict(self, X: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(self.regressor_.predict(_named(X)), X.index, self._columns)

    def _predict_proba(self, X: pd.DataFrame) -> PredictedColumns:
        prediction = self.regressor_.predict_distribution(_named(X))
        columns = [prediction.column(j) for j in range(len(self._columns))]
        return PredictedColumns(columns, X.index, self._columns)


class PredictedColumns(BaseDistribution):
    """The marginal predictive distributions of the columns of y: mixtures over the draws.

    Parameters
    ----------
    predictions : list of RegressionPrediction
        One per column, of shape (n,).
    index, columns : Index
    """

    _tags = {  # noqa: RUF012
        "capabilities:exact": ["mean", "var", "cdf", "ppf", "pdf", "log_pdf"],
        "capabilities:approx": ["energy", "pdfnorm"],
        "distr:measuretype": "mixed",
        "distr:paramtype": "nonparametric",
    }

    def __init__(
        self, predictions: list[RegressionPrediction], index: Any = None, columns: Any = None
    ) -> None:
        self.predictions = predictions
        super().__init__(index=index, columns=columns)

    def _init_shape_bc(self, index: Any = None, columns: Any = None) -> None:
        self._shape = (len(self.index), len(self.columns))

    def _iloc(self, rowidx: Any = None, colidx: Any = None) -> PredictedColumns:
        n, m = self._shape
        rows = np.arange(n) if rowidx is None else np.atleast_1d(np.arange(n)[rowidx])
        kept = np.arange(m) if colidx is None else np.atleast_1d(np.arange(m)[colidx])
        chosen = [self.predictions[j][rows] for j in kept]
        return PredictedColumns(chosen, self.index[rows], self.columns[kept])

    def _by_column(self, values: Any) -> np.ndarray:
        return np.column_stack([np.asarray(value, dtype=float) for value in values])

    def _mean(self) -> np.ndarray:
        return self._by_column(p.mean for p in self.predictions)

    def _var(self) -> np.ndarray:
        return self._by_column(p.sd**2 for p in self.predictions)

    def _cdf(self, x: np.ndarray) -> np.ndarray:
        return self._by_column(p.cdf(v) for p, v in zip(self.predictions, x.T, strict=True))

    def _log_pdf(self, x: np.ndarray) -> np.ndarray:
        return self._by_column(p.log_prob(v) for p, v in zip(self.predictions, x.T, strict=True))

    def _pdf(self, x: np.ndarray) -> np.ndarray:
        return np.exp(self._log_pdf(x))

    def _ppf(self, p: np.ndarray) -> np.ndarray:
        levels, which = np.unique(p, return_inverse=True)
        inner = np.clip(levels, 1e-12, 1 - 1e-12)
        quantiles = np.stack([prediction.quantile(inner) for prediction in self.predictions], -1)
        rows, columns = np.indices(p.shape)
        return quantiles[which.reshape(p.shape), rows, columns]

    def _sample(self, n_samples: int | None = None) -> pd.DataFrame:
        n, rng = n_samples or 1, np.random.default_rng()
        values = np.stack([_sample(prediction, n, rng) for prediction in self.predictions], -1)
        index = self.index
        if n_samples is not None:
            index = pd.MultiIndex.from_product([range(n), index])
        return pd.DataFrame(values.reshape(-1, len(self.columns)), index, self.columns)


def _sample(prediction: RegressionPrediction, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n draws of y for each row, in random order of the draws of the weights."""
    drawn = [prediction.sample(int(rng.integers(2**31)))]
    while len(drawn) * len(drawn[0]) < n:
        drawn.append(prediction.sample(int(rng.integers(2**31))))
    return rng.permuted(np.concatenate(drawn), axis=0)[:n]


def _named(X: pd.DataFrame) -> pd.DataFrame:
    """Return X with strings as column names, which scikit-learn requires."""
    return X.set_axis(X.columns.astype(str), axis=1)
