"""The demonstration: cross-check, then two tasks on real data against two rivals each."""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Independent

from .. import likelihoods, plots, priors, scores
from ..comparisons.crosscheck import CrossCheck, crosscheck
from ..model.mlp import mlp
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..posterior.posterior import Posterior
from ..prediction.predictions import ClassificationPrediction, RegressionPrediction
from ..prediction.scaling import Standardizer

SEED = 0
FIRST_SPLIT = 5000
"""All settings below, those of the rivals too, were chosen by cross-validation within the training
rows of splits 2000 to 2009: those shown are others."""
BAYES, PLAIN, LINEAR = "Bayes by Backprop", "same net, no Bayes", "linear model"


@dataclass(frozen=True)
class Task:
    """A data set in four parts, as double-precision or integer arrays."""

    name: str
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def run(out: str | Path, *, quick: bool = False) -> bool:
    """Run the demonstration; write pictures into a folder; say whether the cross-check agrees."""
    started = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    report = check(SEED, quick=quick)
    regression(folder, quick=quick)
    classification(folder, quick=quick)
    print(f"\nPictures: {folder}/regression.png, {folder}/classification.png")
    print(f"Took {time.perf_counter() - started:.0f} s.")
    return report


def check(seed: int, *, quick: bool = False) -> bool:
    """Cross-check small networks of three kinds; print the tables; say whether all agree."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 3))
    real = np.sin(x.sum(1, keepdims=True)) + 0.1 * rng.normal(size=(40, 1))
    cases: dict[str, tuple[BayesianNetwork, np.ndarray]] = {
        "regression, normal prior, learnt noise": (
            BayesianNetwork(mlp(3, [8], 1, seed=seed), priors.Normal(1.0)),
            real,
        ),
        "two classes, scale-mixture prior, two tanh layers": (
            BayesianNetwork(
                mlp(3, [8, 6], 1, "tanh", seed=seed), priors.ScaleMixture(), likelihoods.Bernoulli()
            ),
            (real > 0).astype(float),
        ),
        "three classes, normal prior": (
            BayesianNetwork(
                mlp(3, [8], 3, seed=seed), priors.FanInNormal(), likelihoods.Categorical()
            ),
            np.digitize(real[:, 0], [-0.5, 0.5]),
        ),
    }
    print("Cross-check: independent ways to the same loss and the same gradients\n")
    agree = True
    for name, (network, y) in list(cases.items())[: 1 if quick else None]:
        report: CrossCheck = crosscheck(network, x, y, n_draws=100, n_steps=10, seed=seed)
        print(f"{name}\n{report}\n")
        agree &= report.ok
    return agree


def regression(folder: Path, *, quick: bool = False) -> None:
    """Fit disease progression (scikit-learn's diabetes data) on several splits; print, draw."""
    from sklearn.linear_model import Ridge

    splits = 1 if quick else 4
    rows: dict[str, list[list[float]]] = {BAYES: [], PLAIN: [], LINEAR: []}
    for split in range(FIRST_SPLIT, FIRST_SPLIT + splits):
        task = _diabetes(split)
        inputs, target = Standardizer.of(task.x), Standardizer.of(task.y)
        x, x_test = inputs.transform(task.x), inputs.transform(task.x_test)
        y = target.transform(task.y)

        likelihood = likelihoods.HeteroscedasticGaussian()
        net = mlp(x.shape[1], [5], 2, seed=split)
        posterior = fit(
            BayesianNetwork(net, priors.FanInNormal(1.5), likelihood),
            x,
            y,
            epochs=20 if quick else 800,
            lr=0.02,
            objective="mean_field",
            restarts=2,
            seed=split,
            progress=sys.stderr.isatty(),
        )
        plain = _train_plain(net, x, y, likelihood, lr=1e-2, weight_decay=1.0, quick=quick)
        linear = Ridge(alpha=10.0).fit(x, y[:, 0])
        residuals = y[:, 0] - linear.predict(x)
        residual_sd = np.sqrt((residuals**2).sum() / (len(x) - x.shape[1] - 1))
        predictions: dict[str, Any] = {
            BAYES: posterior.predict(x_test, n_draws=300, seed=split),
            PLAIN: _certain(likelihood, plain(torch.as_tensor(x_test))),
            LINEAR: _certain(
                likelihoods.Gaussian(residual_sd), torch.as_tensor(linear.predict(x_test))[:, None]
            ),
        }
        for name, standardised in predictions.items():
            prediction = standardised.rescaled(target.loc, target.scale)
            predictions[name] = prediction
            y_test = task.y_test
            rows[name].append(
                [
                    scores.nll(prediction, y_test),
                    scores.crps(prediction, y_test, n_levels=99),
                    scores.rmse(prediction, y_test),
                    100 * scores.coverage(prediction, y_test),
                ]
            )
    print(f"Regression: diabetes, {len(task.x)} rows to fit, {len(task.x_test)} to test")
    _table(rows, ["NLL", "CRPS", "RMSE", "90 % interval holds %"])
    _draw(folder / "regression.png", posterior, predictions, task.y_test)


def classification(folder: Path, *, quick: bool = False) -> None:
    """Fit handwritten digits (scikit-learn's digits data) on several splits; print, draw."""
    from sklearn.linear_model import LogisticRegression

    splits = 1 if quick else 3
    rows: dict[str, list[list[float]]] = {BAYES: [], PLAIN: [], LINEAR: []}
    for split in range(FIRST_SPLIT, FIRST_SPLIT + splits):
        task = _digits(split)
        x, x_test = ((part - task.x.mean(0)) / 2.0 for part in (task.x, task.x_test))
        likelihood = likelihoods.Categorical()
        net = mlp(64, [200], 10, "gelu", seed=split)
        posterior = fit(
            BayesianNetwork(net, priors.FanInNormal(1.0), likelihood),
            x,
            task.y,
            epochs=5 if quick else 100,
            lr=0.02,
            objective="mean_field",
            # A cold posterior: at full weight the net is far too unsure of clean digits.
            kl_weight=lambda batch, n_batches: 0.003 / n_batches,
            restarts=4,
            seed=split,
            progress=sys.stderr.isatty(),
        )
        plain = _train_plain(net, x, task.y, likelihood, lr=1e-3, weight_decay=0.3, quick=quick)
        linear = LogisticRegression(C=0.1, max_iter=5000, tol=1e-3).fit(x, task.y)
        predictions: dict[str, Any] = {
            BAYES: posterior.predict(x_test, n_draws=300, seed=split),
            PLAIN: _certain(likelihood, plain(torch.as_tensor(x_test))),
            LINEAR: _certain(likelihood, torch.as_tensor(linear.predict_log_proba(x_test))),
        }
        for name, prediction in predictions.items():
            rows[name].append(
                [
                    scores.nll(prediction, task.y_test),
                    scores.brier(prediction, task.y_test),
                    100 * scores.error_rate(prediction, task.y_test),
                    100 * scores.ece(prediction, task.y_test),
                ]
            )
    print(f"\nClassification: digits, {len(x)} images to fit, {len(x_test)} to test")
    _table(rows, ["NLL", "Brier", "error %", "ECE %"])
    _draw(folder / "classification.png", posterior, predictions, task.y_test)


def _diabetes(seed: int) -> Task:
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split

    x, y = load_diabetes(return_X_y=True, scaled=False)
    parts = train_test_split(x, y[:, None], test_size=0.25, random_state=seed)
    return Task("diabetes", parts[0], parts[2], parts[1], parts[3])


def _digits(seed: int) -> Task:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.4, random_state=seed, stratify=y)
    return Task("digits", parts[0], parts[2], parts[1], parts[3])


def _train_plain(
    net: nn.Sequential,
    x: np.ndarray,
    y: np.ndarray,
    likelihood: likelihoods.Likelihood,
    *,
    lr: float,
    weight_decay: float,
    quick: bool,
) -> nn.Sequential:
    """Train without Bayes as one should: AdamW, stopped where a held-out part is best."""
    net = copy.deepcopy(net).double()
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(x), generator=generator)
    n_held = len(x) // 7
    held_out, fitted = order.split([n_held, len(x) - n_held])
    inputs, targets = torch.as_tensor(x), torch.as_tensor(y)
    (x_held, y_held), (x_fit, y_fit) = (
        (inputs[part], targets[part]) for part in (held_out, fitted)
    )

    def nll(x: Tensor, y: Tensor) -> Tensor:
        return -likelihood(net(x)).log_prob(y).mean()

    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    best, best_state, since = float("inf"), net.state_dict(), 0
    for _ in range(5 if quick else 1000):
        for rows in torch.randperm(len(x_fit), generator=generator).split(32):
            optimizer.zero_grad()
            nll(x_fit[rows], y_fit[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            held = nll(x_held, y_held).item()
        since += 1
        if held < best:
            best, since = held, 0
            best_state = {name: value.clone() for name, value in net.state_dict().items()}
        if since > 30:
            break
    net.load_state_dict(best_state)
    return net.requires_grad_(False)


def _certain(
    likelihood: likelihoods.Likelihood, output: Tensor
) -> RegressionPrediction | ClassificationPrediction:
    """Give the prediction of a model that has no doubt: one draw."""
    distribution = likelihood(output[None])
    if isinstance(likelihood, likelihoods.Categorical):
        return ClassificationPrediction([distribution], np.empty(0))
    return RegressionPrediction([Independent(distribution, 1)], np.empty(0))


def _table(rows: dict[str, list[list[float]]], columns: list[str]) -> None:
    """Print the means over splits, with their standard errors where there is more than one."""
    n_splits = len(next(iter(rows.values())))
    print(f"(mean of {n_splits} random splits +- standard error)" if n_splits > 1 else "", end="")
    print(f"\n{'':<20}" + "".join(f"{column:>23}" for column in columns))
    for name, values in rows.items():
        table = np.array(values)
        mean = table.mean(0)
        if n_splits > 1:
            error = table.std(0, ddof=1) / np.sqrt(n_splits)
            cells = [f"{m:.3f} +- {e:.3f}" for m, e in zip(mean, error, strict=True)]
        else:
            cells = [f"{m:.3f}" for m in mean]
        print(f"{name:<20}" + "".join(f"{cell:>23}" for cell in cells))


def _draw(
    path: Path, posterior: Posterior, predictions: dict[str, Any], y_test: np.ndarray
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    first, history, calibration, snr = figure.subplots(2, 2).flat
    bayes = predictions[BAYES]
    if isinstance(bayes, RegressionPrediction):
        plots.plot_intervals(bayes, y_test, ax=first)
        first.set(title="Predictive intervals on the test rows", ylabel="disease progression")
    else:
        plots.plot_uncertainty(bayes, y_test, ax=first)
        first.set_title("Predictive entropy of correct and incorrect predictions")
    plots.plot_history(posterior.chains[0].history, ax=history)
    history.set_title("Training: negative ELBO and its parts")
    for (name, prediction), color in zip(
        predictions.items(), (plots.ACCENT, plots.SECOND, plots.INK), strict=True
    ):
        draw: Any = (
            plots.plot_coverage
            if isinstance(prediction, RegressionPrediction)
            else plots.plot_reliability
        )
        draw(prediction, y_test, ax=calibration, label=name, color=color)
    calibration.legend(frameon=False, fontsize="small")
    calibration.set_title("Calibration")
    plots.plot_snr(posterior, ax=snr)
    snr.set_title("Signal-to-noise ratio of the weights")
    figure.savefig(path, dpi=130)
