"""Minimise two functions by Bayesian optimisation: with networks, a Gaussian process, at random.

Hartmann's function of 6 inputs is smooth. The other function has 10 inputs and jumps by 0.5 to 1.5
at each of 12 planes; its planes differ from seed to seed. Bayes by Backprop on small networks and
BoTorch's SingleTaskGP choose their next trials by the same acquisition function and optimizer; the
last layer in closed form, on 300 random units, by Thompson sampling. Shown is the simple regret:
the lowest value so far, less the minimum of the function.

    python examples/bayesian_optimization.py          # one seed, a few trials: half a minute
    python examples/bayesian_optimization.py --full   # ten seeds; writes the files beside this one

A full run that was interrupted continues. Settings were chosen on other functions: Levy's and
Styblinski and Tang's of 6 inputs, and jumps of other seeds. Needs the extra `botorch`.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from botorch.optim import optimize_acqf
from botorch.test_functions import Hartmann
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch.quasirandom import SobolEngine

from pyrobbb import BayesianNetwork, fit, last_layer, likelihoods, mlp, priors

RECORD = Path(__file__).with_suffix(".jsonl")
FIGURE = Path(__file__).with_suffix(".png")
METHODS = ("random", "SingleTaskGP", "Bayes by Backprop", "last layer")
FIRST_EPOCHS, NEXT_EPOCHS = 1000, 250
HALF_WIDTH = 1.7
"""The network sees inputs in [-1.7, 1.7], whose standard deviation is about 1."""


class Hartmann6:
    """Hartmann's function on the unit cube, less its minimum."""

    n_inputs, n_start, n_batch, n_rounds = 6, 10, 2, 15

    def __init__(self, seed):
        self._function = Hartmann(6)

    def __call__(self, x):
        return self._function(x).double() - self._function.optimal_value


class Jumps10:
    """A shallow bowl that jumps at planes; its minimum, 0, is on the lower side of all of them."""

    n_inputs, n_start, n_batch, n_rounds = 10, 20, 3, 12

    def __init__(self, seed, n_planes=12):
        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator, "dtype": torch.float64}
        self._normals = torch.randn(n_planes, self.n_inputs, **options)
        self._points = 0.2 + 0.6 * torch.rand(n_planes, self.n_inputs, **options)
        self._heights = 0.5 + torch.rand(n_planes, **options)
        self._minimum = 0.2 + 0.6 * torch.rand(self.n_inputs, **options)
        is_above = ((self._minimum - self._points) * self._normals).sum(-1) > 0
        self._normals[is_above] *= -1

    def __call__(self, x):
        is_above = ((x[..., None, :] - self._points) * self._normals).sum(-1) > 0
        return (is_above * self._heights).sum(-1) + 3 * (x - self._minimum).square().mean(-1)


def transforms(n_inputs):
    """Return transforms of BoTorch: of the inputs, to [-HALF_WIDTH, HALF_WIDTH], and of y."""
    middle = 0.5 + torch.tensor([[-0.25], [0.25]], dtype=torch.float64) / HALF_WIDTH
    return Normalize(n_inputs, bounds=middle.expand(2, n_inputs), center=0.0), Standardize(1)


def of_posterior(x, y, seed, last):
    """Return a model of BoTorch, and the posterior at which the next fit begins."""
    n_inputs = x.shape[1]
    scaled, standardized = transforms(n_inputs)
    network = BayesianNetwork(
        mlp(n_inputs, [50, 50], 1, "silu", seed=seed),
        priors.FanInNormal(),
        likelihoods.Gaussian(scale=0.05),
    )
    targets, _ = standardized(y)
    warm = {"start": last, "kl_warmup": 0, "epochs": NEXT_EPOCHS, "lr": 0.015}
    posterior = fit(
        network,
        scaled(x),
        targets,
        engine="fused",
        kl_weight=0.01,
        restarts=4,
        seed=seed,
        progress=False,
        **({"epochs": FIRST_EPOCHS, "lr": 0.03} if last is None else warm),
    )
    options = {"input_transform": scaled, "outcome_transform": standardized}
    return posterior.to_botorch(64, seed=seed, **options), posterior


def of_last_layer(x, y, seed):
    """Return a model of BoTorch: the last layer in closed form, on random units."""
    scaled, standardized = transforms(x.shape[1])
    targets, _ = standardized(y)
    net = mlp(x.shape[1], [300], 1, "relu").double()
    generator = torch.Generator().manual_seed(seed)  # the same units in each round
    torch.nn.init.normal_(net[0].weight, std=x.shape[1] ** -0.5, generator=generator)
    torch.nn.init.normal_(net[0].bias, generator=generator)
    options = {"input_transform": scaled, "outcome_transform": standardized}
    posterior = last_layer(net, scaled(x), targets)
    return posterior.to_botorch(128, seed=1000 * seed + len(x), **options)  # new draws


def of_gaussian_process(x, y):
    """Return BoTorch's Gaussian process with its defaults."""
    model = SingleTaskGP(x, y)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def next_trials(model, x, n):
    """Return n points that maximise the noisy expected improvement."""
    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, x.shape[1])
    acquisition = qLogNoisyExpectedImprovement(model, x, prune_baseline=True)
    options = {"num_restarts": 2, "raw_samples": 128, "options": {"maxiter": 40}}
    return optimize_acqf(acquisition, bounds, q=n, sequential=True, **options)[0]


def thompson_trials(model, x, n):
    """Return the maxima of n different draws."""
    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, x.shape[1])
    options = {"num_restarts": 2, "raw_samples": 128, "options": {"maxiter": 40}}
    return optimize_acqf(PathwiseThompsonSampling(model), bounds, q=n, **options)[0]


def search(task, method, seed, n_rounds):
    """Return the regret after the first trials and after each round, and seconds per round."""
    function = task(seed)
    torch.manual_seed(seed)
    x = SobolEngine(task.n_inputs, scramble=True, seed=seed).draw(task.n_start).double()
    value, last = function(x), None
    regrets, start = [float(value.min())], time.process_time()
    for _ in range(n_rounds):
        y = -value[:, None]  # BoTorch maximises
        if method == "random":
            new = torch.rand(task.n_batch, task.n_inputs, dtype=torch.float64)
        elif method == "SingleTaskGP":
            new = next_trials(of_gaussian_process(x, y), x, task.n_batch)
        elif method == "last layer":
            new = thompson_trials(of_last_layer(x, y, seed), x, task.n_batch)
        else:
            model, last = of_posterior(x, y, seed, last)
            new = next_trials(model, x, task.n_batch)
        x, value = torch.cat([x, new]), torch.cat([value, function(new)])
        regrets.append(float(value.min()))
    return regrets, (time.process_time() - start) / n_rounds


def summarise(runs):
    """Print the mean regret with its standard error, and the time of a round."""
    print(f"{'function':10s} {'method':18s} seeds   trials   simple regret         s per round")
    for task in (Hartmann6, Jumps10):
        for method in METHODS:
            mine = [run for run in runs if (run["task"], run["method"]) == (task.__name__, method)]
            last = np.array([run["regrets"][-1] for run in mine])
            error = f" +- {last.std(ddof=1) / len(last) ** 0.5:.3f}" if len(last) > 1 else ""
            n_trials = task.n_start + task.n_batch * (len(mine[0]["regrets"]) - 1)
            seconds = np.mean([run["seconds"] for run in mine])
            print(
                f"{task.__name__:10s} {method:18s} {len(mine):5d} {n_trials:8d}   "
                f"{last.mean():.3f}{error:9s}        {seconds:9.2f}"
            )


def plot(runs, path):
    """Draw the median regret over the seeds, and its quartiles."""
    import matplotlib.pyplot as plt

    plt.rcParams |= {"figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9}
    colors = dict(zip(METHODS, ("#999999", "#2a6f97", "#c8553d", "#e0a030"), strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for ax, task in zip(axes, (Hartmann6, Jumps10), strict=True):
        for method in METHODS:
            curves = [
                r["regrets"] for r in runs if (r["task"], r["method"]) == (task.__name__, method)
            ]
            lower, middle, upper = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
            n_trials = task.n_start + task.n_batch * np.arange(len(middle))
            ax.fill_between(n_trials, lower, upper, color=colors[method], alpha=0.2, lw=0)
            ax.plot(n_trials, middle, color=colors[method], label=method)
        ax.set(xlabel="trials", ylabel="simple regret", title=task.__name__)
    axes[0].legend(frameon=False)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="ten seeds; write record and figure")
    parser.add_argument("--quick", action="store_true", help="one seed, one round (the tests)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "Optimization failed")  # BoTorch then tries again
    torch.set_num_threads(1)
    runs = []
    if args.full and RECORD.exists():
        runs = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    known = {(run["task"], run["method"], run["seed"]) for run in runs}
    for seed in range(10 if args.full else 1):
        for task in (Hartmann6, Jumps10):
            for method in METHODS:
                if (task.__name__, method, seed) in known:
                    continue
                n_rounds = task.n_rounds if args.full else 1 if args.quick else 5
                regrets, seconds = search(task, method, seed, n_rounds)
                run = {
                    "task": task.__name__,
                    "method": method,
                    "seed": seed,
                    "seconds": round(seconds, 2),
                    "regrets": [round(regret, 5) for regret in regrets],
                }
                runs.append(run)
                if args.full:
                    with RECORD.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(run) + "\n")
    summarise(runs)
    if args.full:
        plot(runs, FIGURE)


if __name__ == "__main__":
    main()
