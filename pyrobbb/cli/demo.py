"""Demonstration: a cross-check, then two tasks on real data with two baselines each."""

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
from ..comparisons import CrossCheck, crosscheck
from ..fitted import raise_if_interrupted
from ..model.mlp import mlp
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..posterior.posterior import Posterior
from ..prediction import ClassificationPrediction, RegressionPrediction, Standardizer

SEED = 0
FIRST_SPLIT = 5000
"""All settings, those of the baselines included, were chosen by cross-validation within the
training rows of splits 2000 to 2009; the results shown are of other splits."""
KL_WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Tried on the digits; 1 as in Bayes' rule."""
BAYES, PLAIN, LINEAR = "Bayes by Backprop", "same net, no Bayes", "linear model"


@dataclass(frozen=True)
class Split:
    """A data set split into training and test rows, in double precision or integers."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def run(out: str | Path, *, quick: bool = False) -> bool:
    """Run the demonstration, and return whether the cross-check agrees.

    Parameters
    ----------
    out : path-like
        Folder for the figures.
    quick : bool
        Use a small budget, only to see that the demonstration runs.
    """
    started = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    agrees = check(SEED, quick=quick)
    regression(folder, quick=quick)
    classification(folder, quick=quick)
    print(f"\nFigures: {folder}/regression.png, {folder}/classification.png")
    print(f"Took {time.perf_counter() - started:.0f} s.")
    return agrees


def check(seed: int, *, quick: bool = False) -> bool:
    """Cross-check three small networks, print the tables, and return whether all agree."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 3))
    real = np.sin(x.sum(1, keepdims=True)) + 0.1 * rng.normal(size=(40, 1))
    cases: dict[str, tuple[BayesianNetwork, np.ndarray]] = {
        "regression, normal prior, inferred noise scale": (
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
    print("Cross-check: independent computations of the same loss and gradients\n")
    agrees = True
    for name, (network, y) in list(cases.items())[: 1 if quick else None]:
        report: CrossCheck = crosscheck(network, x, y, n_draws=100, n_steps=10, seed=seed)
        print(f"{name}\n{report}\n")
        agrees &= report.ok
    return agrees


def regression(folder: Path, *, quick: bool = False) -> None:
    """Fit disease progression (scikit-learn's diabetes data) on several splits, and compare."""
    from sklearn.linear_model import Ridge

    n_splits = 1 if quick else 4
    rows: dict[str, list[list[float]]] = {BAYES: [], PLAIN: [], LINEAR: []}
    for seed in range(FIRST_SPLIT, FIRST_SPLIT + n_splits):
        split = _diabetes(seed)
        inputs, target = Standardizer.of(split.x), Standardizer.of(split.y)
        x, x_test = inputs.transform(split.x), inputs.transform(split.x_test)
        y = target.transform(split.y)

        likelihood = likelihoods.HeteroscedasticGaussian()
        net = mlp(x.shape[1], [5], 2, seed=seed)
        posterior = fit(
            BayesianNetwork(net, priors.FanInNormal(1.5), likelihood),
            x,
            y,
            epochs=20 if quick else 800,
            lr=0.02,
            objective="mean_field",
            restarts=2,
            seed=seed,
            progress=sys.stderr.isatty(),
        )
        raise_if_interrupted(posterior.chains)
        plain = _train_plain(net, x, y, likelihood, lr=1e-2, weight_decay=1.0, quick=quick)
        linear = Ridge(alpha=10.0).fit(x, y[:, 0])
        residuals = y[:, 0] - linear.predict(x)
        residual_sd = np.sqrt((residuals**2).sum() / (len(x) - x.shape[1] - 1))
        predictions: dict[str, Any] = {
            BAYES: posterior.predict(x_test, n_draws=300, seed=seed),
            PLAIN: _point_prediction(likelihood, plain(torch.as_tensor(x_test))),
            LINEAR: _point_prediction(
                likelihoods.Gaussian(residual_sd), torch.as_tensor(linear.predict(x_test))[:, None]
            ),
        }
        for name, standardised in predictions.items():
            prediction = standardised.rescaled(target.loc, target.scale)
            predictions[name] = prediction
            rows[name].append(
                [
                    scores.nll(prediction, split.y_test),
                    scores.crps(prediction, split.y_test, n_levels=99),
                    scores.rmse(prediction, split.y_test),
                    100 * scores.coverage(prediction, split.y_test),
                ]
            )
    print(f"Regression: diabetes, {len(split.x)} rows to fit, {len(split.x_test)} to test")
    _print_table(rows, ["NLL", "CRPS", "RMSE", "90 % coverage %"])
    _draw(folder / "regression.png", posterior, predictions, split.y_test)


def classification(folder: Path, *, quick: bool = False) -> None:
    """Fit handwritten digits (scikit-learn's digits data) on several splits, and compare."""
    from sklearn.linear_model import LogisticRegression

    n_splits = 1 if quick else 3
    rows: dict[str, list[list[float]]] = {BAYES: [], PLAIN: [], LINEAR: []}
    chosen: list[float] = []
    for seed in range(FIRST_SPLIT, FIRST_SPLIT + n_splits):
        split = _digits(seed)
        x, x_test = ((part - split.x.mean(0)) / 2.0 for part in (split.x, split.x_test))
        likelihood = likelihoods.Categorical()
        net = mlp(64, [200], 10, "gelu", seed=seed)
        network = BayesianNetwork(net, priors.FanInNormal(1.0), likelihood)
        options: dict[str, Any] = {
            "epochs": 5 if quick else 100,
            "lr": 0.02,
            "objective": "mean_field",
            "seed": seed,
            "progress": sys.stderr.isatty(),
        }
        chosen.append(_choose_kl_weight(network, x, split.y, options))
        posterior = fit(network, x, split.y, kl_weight=chosen[-1], restarts=4, **options)
        raise_if_interrupted(posterior.chains)
        plain = _train_plain(net, x, split.y, likelihood, lr=1e-3, weight_decay=0.3, quick=quick)
        linear = LogisticRegression(C=0.1, max_iter=5000, tol=1e-3).fit(x, split.y)
        predictions: dict[str, Any] = {
            BAYES: posterior.predict(x_test, n_draws=300, seed=seed),
            PLAIN: _point_prediction(likelihood, plain(torch.as_tensor(x_test))),
            LINEAR: _point_prediction(
                likelihood, torch.as_tensor(linear.predict_log_proba(x_test))
            ),
        }
        for name, prediction in predictions.items():
            rows[name].append(
                [
                    scores.nll(prediction, split.y_test),
                    scores.brier(prediction, split.y_test),
                    100 * scores.error_rate(prediction, split.y_test),
                    100 * scores.ece(prediction, split.y_test),
                ]
            )
    print(f"\nClassification: digits, {len(x)} images to fit, {len(x_test)} to test")
    _print_table(rows, ["NLL", "Brier", "error %", "ECE %"])
    weights = ", ".join(f"{weight:g}" for weight in chosen)
    print(f"KL weights with the lowest NLL of held-out training images: {weights}")
    _draw(folder / "classification.png", posterior, predictions, split.y_test)


def _choose_kl_weight(
    network: BayesianNetwork, x: np.ndarray, y: np.ndarray, options: dict[str, Any]
) -> float:
    """Return the KL weight whose chain predicts a seventh of the training rows best.

    With the full weight, the mean-field posterior of a wide network is far too uncertain about
    clean digits.
    """
    order = np.random.default_rng(SEED).permutation(len(x))
    held_out, fitted = np.split(order, [len(x) // 7])
    chains = fit(
        network, x[fitted], y[fitted], kl_weight=KL_WEIGHTS, restarts=len(KL_WEIGHTS), **options
    ).chains
    raise_if_interrupted(chains)
    nll = [
        scores.nll(Posterior((chain,)).predict(x[held_out], n_draws=100, seed=SEED), y[held_out])
        for chain in chains
    ]
    return KL_WEIGHTS[int(np.argmin(nll))]


def _diabetes(seed: int) -> Split:
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split

    x, y = load_diabetes(return_X_y=True, scaled=False)
    parts = train_test_split(x, y[:, None], test_size=0.25, random_state=seed)
    return Split(parts[0], parts[2], parts[1], parts[3])


def _digits(seed: int) -> Split:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.4, random_state=seed, stratify=y)
    return Split(parts[0], parts[2], parts[1], parts[3])


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
    """Train a point estimate with AdamW, and return the net with the lowest held-out loss."""
    net = copy.deepcopy(net).double()
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(x), generator=generator)
    n_held_out = len(x) // 7
    held_out, fitted = order.split([n_held_out, len(x) - n_held_out])
    inputs, targets = torch.as_tensor(x), torch.as_tensor(y)
    x_fit, y_fit = inputs[fitted], targets[fitted]
    x_held_out, y_held_out = inputs[held_out], targets[held_out]

    def nll(x: Tensor, y: Tensor) -> Tensor:
        return -likelihood(net(x)).log_prob(y).mean()

    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    best_nll, best_state, n_worse = float("inf"), net.state_dict(), 0
    for _ in range(5 if quick else 1000):
        for rows in torch.randperm(len(x_fit), generator=generator).split(32):
            optimizer.zero_grad()
            nll(x_fit[rows], y_fit[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            held_out_nll = nll(x_held_out, y_held_out).item()
        n_worse += 1
        if held_out_nll < best_nll:
            best_nll, n_worse = held_out_nll, 0
            best_state = {name: value.clone() for name, value in net.state_dict().items()}
        if n_worse > 30:
            break
    net.load_state_dict(best_state)
    return net.requires_grad_(False)


def _point_prediction(
    likelihood: likelihoods.Likelihood, output: Tensor
) -> RegressionPrediction | ClassificationPrediction:
    """Return the prediction of a point estimate, which has no epistemic uncertainty."""
    distribution = likelihood(output[None])
    if isinstance(likelihood, likelihoods.Categorical):
        return ClassificationPrediction([distribution], np.empty(0))
    return RegressionPrediction([Independent(distribution, 1)], np.empty(0))


def _print_table(rows: dict[str, list[list[float]]], columns: list[str]) -> None:
    """Print the means over splits, with standard errors if there is more than one split."""
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
    of_chain = " of the first chain" if len(posterior.chains) > 1 else ""
    history.set_title(f"Training{of_chain}: negative ELBO and its parts")
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
