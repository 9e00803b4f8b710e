"""The models of the UCI benchmark, all with their default settings: what each predicts of a row."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import BayesianRidge
from torch import nn

from pyrobbb import BBBRegressor, mlp, scores
from pyrobbb.estimators.networks import LARGE, MANY_ROWS, SMALL

GP_ROWS = 1000
"""Rows that the Gaussian process is fitted to at most, drawn at random: its cost is cubic."""
MEMBERS, MOST_EPOCHS, PATIENCE = 5, 1000, 30


@dataclass(frozen=True)
class Score:
    """How a model did on the test rows of a split.

    Attributes
    ----------
    log_lik : float
        Mean log predictive density, in nats, of y in its own units.
    rmse : float
    coverage : float
        Share of the test rows within their central 90 % interval.
    width : float
        Mean width of these intervals.
    chosen : dict
        What an estimator has chosen; see `choices_of`.
    """

    log_lik: float
    rmse: float
    coverage: float
    width: float
    chosen: dict[str, Any] = field(default_factory=dict)


Model = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], Score]


def bbb(**options: Any) -> Model:
    """Bayes by Backprop as it comes, but for some options of `BBBRegressor`."""

    def score(
        x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
    ) -> Score:
        model = BBBRegressor(**options, random_state=seed)
        model.fit(x, y)
        prediction = model.predict_distribution(x_test)
        lower, upper = prediction.interval(0.9)
        return Score(
            -scores.nll(prediction, y_test),
            scores.rmse(prediction, y_test),
            _share_within(y_test, lower, upper),
            float((upper - lower).mean()),
            choices_of(model),
        )

    return score


def choices_of(estimator: Any) -> dict[str, Any]:
    """Return the KL weight, the widths and the likelihood that a fitted estimator has, by name.

    Those that it does not have are left out.
    """
    names = ("kl_weight_", "hidden_", "likelihood_")
    chosen = {name: getattr(estimator, name, None) for name in names}
    return {name: _shown(value) for name, value in chosen.items() if value is not None}


def _shown(value: Any) -> float | str:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, tuple) and any(isinstance(part, float) for part in value):
        return f"{min(value):g} to {max(value):g}"
    if isinstance(value, str | tuple | list):
        return str(value)
    return getattr(value, "__name__", type(value).__name__)


def gaussian_process(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> Score:
    """Fit scikit-learn's, with a length scale for each input and learned noise."""
    rows = np.random.default_rng(seed).permutation(len(x))[:GP_ROWS]
    inputs, target = Units.of(x[rows]), Units.of(y[rows])
    kernel = ConstantKernel() * RBF(np.ones(x.shape[1])) + WhiteKernel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel, random_state=seed)
        model.fit(inputs.to(x[rows]), target.to(y[rows]))
    return _normal(*target.back(*model.predict(inputs.to(x_test), return_std=True)), y_test)


def bayesian_ridge(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> Score:
    """Fit scikit-learn's: a linear model."""
    inputs, target = Units.of(x), Units.of(y)
    model = BayesianRidge().fit(inputs.to(x), target.to(y))
    return _normal(*target.back(*model.predict(inputs.to(x_test), return_std=True)), y_test)


def ngboost(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> Score:
    """Fit natural gradient boosting: trees that give a mean and a scale."""
    from ngboost import NGBRegressor

    target = Units.of(y)
    model = NGBRegressor(verbose=False, random_state=seed).fit(x, target.to(y))
    found = model.pred_dist(x_test).params
    return _normal(*target.back(found["loc"], found["scale"]), y_test)


def deep_ensemble(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> Score:
    """Fit five nets of the estimator's size, that give a mean and a scale, without Bayes.

    AdamW, stopped where a tenth of the rows, held out, is best (Lakshminarayanan et al. 2017, but
    for the stopping and without adversarial examples).
    """
    inputs, target = Units.of(x), Units.of(y)
    hidden = LARGE if len(x) >= MANY_ROWS else SMALL
    members = []
    for member in range(MEMBERS):
        net = mlp(x.shape[1], hidden, 2, seed=100 * seed + member)
        _train(net, _tensor(inputs.to(x)), _tensor(target.to(y)), 100 * seed + member)
        with torch.no_grad():
            members.append([part.numpy() for part in _mean_and_scale(net, inputs.to(x_test))])
    means, scales = (np.stack(part).astype(float) for part in zip(*members, strict=True))
    mean, scale = target.back(means, scales)
    log_lik = np.logaddexp.reduce(stats.norm(mean, scale).logpdf(y_test), axis=0) - np.log(MEMBERS)
    lower, upper = (normal_mixture_quantile(q, mean, scale) for q in (0.05, 0.95))
    return Score(
        float(log_lik.mean()),
        float(np.sqrt(((mean.mean(0) - y_test) ** 2).mean())),
        _share_within(y_test, lower, upper),
        float((upper - lower).mean()),
    )


def normal_mixture_quantile(q: float, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the quantile of each column's mixture of normals, shape (n_members, n), by bisection.

    It lies between the least and the greatest of the members' quantiles.
    """
    members = stats.norm(mean, scale).ppf(q)
    lower, upper = members.min(0), members.max(0)
    for _ in range(60):
        middle = (lower + upper) / 2
        below = stats.norm(mean, scale).cdf(middle).mean(0) < q
        lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
    return (lower + upper) / 2


def _train(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    held, fitted = order[: len(x) // 10], order[len(x) // 10 :]
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-4)

    def nll(rows: torch.Tensor) -> torch.Tensor:
        mean, scale = _mean_and_scale(net, x[rows])
        return (scale.log() + 0.5 * ((y[rows] - mean) / scale) ** 2).mean()

    best, state, since = float("inf"), net.state_dict(), 0
    for _ in range(MOST_EPOCHS):
        for rows in fitted[torch.randperm(len(fitted), generator=generator)].split(128):
            optimizer.zero_grad()
            nll(rows).backward()
            optimizer.step()
        with torch.no_grad():
            now = nll(held).item()
        since += 1
        if now < best:
            best, since = now, 0
            state = {name: value.clone() for name, value in net.state_dict().items()}
        if since > PATIENCE:
            break
    net.load_state_dict(state)


def _mean_and_scale(net: nn.Module, x: Any) -> tuple[torch.Tensor, torch.Tensor]:
    mean, raw = net(_tensor(x)).unbind(-1)
    return mean, nn.functional.softplus(raw) + 1e-3


def _tensor(values: ArrayLike) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


@dataclass(frozen=True)
class Units:
    """Standardised units, measured on training rows."""

    loc: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Units:
        """Measure the columns."""
        spread = rows.std(0)
        return cls(rows.mean(0), np.where(spread > 1e-12, spread, 1.0))

    def to(self, values: np.ndarray) -> np.ndarray:
        """Standardise."""
        return (values - self.loc) / self.scale

    def back(self, mean: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a mean and a standard deviation in the units of the rows."""
        return self.loc + self.scale * mean, self.scale * sd


def _normal(mean: np.ndarray, sd: np.ndarray, y: np.ndarray) -> Score:
    predicted = stats.norm(mean, sd)
    lower, upper = predicted.interval(0.9)
    return Score(
        float(predicted.logpdf(y).mean()),
        float(np.sqrt(((mean - y) ** 2).mean())),
        _share_within(y, lower, upper),
        float((upper - lower).mean()),
    )


def _share_within(y: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    return float(((lower <= y) & (y <= upper)).mean())


MODELS: dict[str, Model] = {
    "BBBRegressor()": bbb(),
    'BBBRegressor(likelihood="heteroscedastic")': bbb(likelihood="heteroscedastic"),
    'BBBRegressor(likelihood="gaussian", kl_weight=0.7)': bbb(likelihood="gaussian", kl_weight=0.7),
    'BBBRegressor(likelihood="heteroscedastic", kl_weight=0.7)': bbb(
        likelihood="heteroscedastic", kl_weight=0.7
    ),
    "BayesianRidge": bayesian_ridge,
    f"GaussianProcessRegressor, at most {GP_ROWS} rows": gaussian_process,
    "NGBoost": ngboost,
    f"deep ensemble of {MEMBERS} such nets": deep_ensemble,
}
