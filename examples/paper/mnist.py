"""MNIST by SGD, dropout and Bayes by Backprop: table 1 and figure 2 of the paper.

    python examples/paper/mnist.py --quick
    python examples/paper/mnist.py --full --data FOLDER [--models mixture] [--kl-weight 0.1]
    python examples/paper/mnist.py --choose --data FOLDER    # selects settings on validation data
    python examples/paper/mnist.py --score POSTERIOR ... --draws 400 --data FOLDER

Two hidden layers of 400 ReLU units, batches of 128. Finished runs are appended to mnist.jsonl, and
their posteriors saved in the folder --posteriors. They are not repeated.
"""

import argparse
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from images import ANGLES, Images, load_mnist, load_small, rotated
from records import append, read
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.distributions import Categorical

import pyrobbb
from pyrobbb import scores

HERE = Path(__file__).parent
RUNS, CHOICES = HERE / "mnist.jsonl", HERE / "mnist-choices.jsonl"
BATCH_SIZE = 128
N_DRAWS = 100


@dataclass(frozen=True)
class Settings:
    """Settings selected on the validation images; the grid of priors is that of the paper."""

    model: str
    lr: float
    pi: float = 0.5
    minus_log_scale1: float = 0.0
    minus_log_scale2: float = 6.0
    kl_weight: float = 1.0
    estimator: str = "reparam"
    init_scale: float | None = None

    @property
    def prior(self):
        scale1, scale2 = math.exp(-self.minus_log_scale1), math.exp(-self.minus_log_scale2)
        if self.model == "gaussian":
            return pyrobbb.priors.Normal(scale1)
        return pyrobbb.priors.ScaleMixture(self.pi, scale1, scale2)


LOCAL = {"lr": 1e-3, "estimator": "local", "init_scale": 0.02}
CHOSEN = {
    "sgd": Settings("sgd", lr=0.03),
    "dropout": Settings("dropout", lr=0.03),
    "gaussian": Settings("gaussian", minus_log_scale1=1.0, kl_weight=0.1, **LOCAL),
    "mixture": Settings("mixture", minus_log_scale1=1.0, kl_weight=0.1, **LOCAL),
}
EPOCHS = {"sgd": 600, "dropout": 300, "gaussian": 200, "mixture": 200}
# Each stage varies one setting, starting from the best ones of the stage before.
STAGES = {
    "sgd": [{"lr": [0.01, 0.03, 0.1, 0.3]}],
    "dropout": [{"lr": [0.01, 0.03, 0.1, 0.3]}],
    "gaussian": [{"minus_log_scale1": [0.0, 1.0, 2.0]}, {"kl_weight": [0.1, 0.3, 1.0]}],
    "mixture": [
        {"pi": [0.25, 0.5, 0.75]},
        {"minus_log_scale1": [0.0, 1.0, 2.0]},
        {"minus_log_scale2": [6.0, 7.0, 8.0]},
        {"lr": [1e-3, 3e-3, 1e-2]},
        {"kl_weight": [0.1, 0.3, 1.0]},
    ],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="default: openml.org")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--quick", action="store_true", help="small digits, a small budget")
    what.add_argument("--full", action="store_true", help="about half an hour per model")
    what.add_argument("--choose", action="store_true", help="try settings, 20 epochs each")
    what.add_argument(
        "--score",
        nargs="+",
        type=Path,
        metavar="POSTERIOR",
        help="saved posteriors, scored as a mixture",
    )
    parser.add_argument("--draws", type=int, default=N_DRAWS, help="draws for --score")
    parser.add_argument("--models", nargs="+", choices=CHOSEN, default=list(CHOSEN))
    parser.add_argument("--units", type=int, default=400)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--kl-weight", type=float, help="instead of the selected one")
    parser.add_argument(
        "--minus-log-scale1", type=float, help="of the prior, instead of the selected one"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--posteriors", type=Path, default=Path("paper-posteriors"))
    options = parser.parse_args()
    torch.set_num_threads(1 if options.quick else options.threads)
    if options.quick:
        images = load_small()
        for model in options.models:
            settings = replace(CHOSEN[model], lr=min(CHOSEN[model].lr * 20, 0.1))
            run = one_run(images, settings, 32, options.epochs or 20, options.seed)[0]
            print(line(run))
        return
    images = load_mnist(options.data)
    if options.score:
        fits = [pyrobbb.Posterior.load(path) for path in options.score]
        mixture = pyrobbb.Posterior([chain for fit in fits for chain in fit.chains])
        valid = scored(predict(mixture, images.x_valid, options.draws), images.y_valid)
        result = {"scored": [path.name for path in options.score], "draws": options.draws}
        result |= {"valid": valid, **evaluate(mixture, images, options.draws)}
        append(RUNS, result)
        print(result)
        return
    print(f"{'':<10} error %  NLL     ECE %   fashion AUROC", flush=True)
    for model in options.models:
        if options.choose:
            choose(images, model, options)
            continue
        epochs, settings = options.epochs or EPOCHS[model], CHOSEN[model]
        for name in ("kl_weight", "minus_log_scale1"):
            if getattr(options, name) is not None:
                settings = replace(settings, **{name: getattr(options, name)})
        key = {"settings": asdict(settings), "units": options.units, "epochs": epochs}
        done = read(RUNS, **key, seed=options.seed)
        if not done:
            run, fitted = one_run(images, settings, options.units, epochs, options.seed)
            if isinstance(fitted, pyrobbb.Posterior):
                name = f"{model}-{options.units}-{options.seed}"
                if settings != CHOSEN[model]:
                    name += f"-{settings.minus_log_scale1:g}-{settings.kl_weight:g}"
                fitted.save(options.posteriors / name)
            done = [{**run, "threads": options.threads}]
            append(RUNS, done[0])
        print(line(done[0]), flush=True)
    if options.full:
        draw(Path(__file__).with_suffix(".png"), read(RUNS, units=options.units))


def choose(images, model, options):
    """Vary one setting at a time, and print the ones with the lowest validation NLL."""
    epochs = options.epochs or 20
    best = CHOSEN[model]
    for stage in STAGES[model]:
        ((name, values),) = stage.items()
        tried = []
        for value in values:
            settings = replace(best, **{name: value})
            done = read(CHOICES, settings=asdict(settings), epochs=epochs)
            if done:
                run = done[0]
            else:
                run, _ = one_run(images, settings, options.units, epochs, options.seed, test=False)
                append(CHOICES, run)
            tried.append((run["valid"]["nll"], settings))
            print(f"{settings}  {run['valid']}", flush=True)
        best = min(tried, key=lambda pair: pair[0])[1]
    print(f"lowest validation NLL: {best}", flush=True)


def one_run(images, settings, units, epochs, seed, test=True):
    """Fit and score one model; return the results and the fitted model."""
    start = time.perf_counter()
    curve = Curve(images, every=max(1, epochs // 60) if test else epochs)
    if settings.model in ("sgd", "dropout"):
        fitted = fit_point(images, settings, units, epochs, seed, curve)
    else:
        fitted = fit_posterior(images, settings, units, epochs, seed, curve)
    seconds = time.perf_counter() - start
    run = {
        "model": settings.model,
        "units": units,
        "epochs": epochs,
        "seed": seed,
        "settings": asdict(settings),
        "seconds": round(seconds),
        "valid": scored(predict(fitted, images.x_valid), images.y_valid),
        "curve": curve.rows,
    }
    if isinstance(fitted, pyrobbb.Posterior):
        run["posterior"] = summarise_weights(fitted, settings)
    if test:
        run |= evaluate(fitted, images)
        if settings.model == "dropout":
            run["with_draws"] = evaluate(fitted.train(), images)
    return run, fitted


def fit_posterior(images, settings, units, epochs, seed, curve):
    n_classes = int(images.y.max()) + 1
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(images.x.shape[1], [units, units], n_classes, seed=seed),
        prior=settings.prior,
        likelihood=pyrobbb.likelihoods.Categorical(),
    )
    return pyrobbb.fit(
        network,
        images.x,
        images.y,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        lr=settings.lr,
        kl_weight=settings.kl_weight,
        kl_warmup=0.3,
        estimator=settings.estimator,
        guide=pyrobbb.MeanFieldGuide(network, init_scale=settings.init_scale),
        seed=seed,
        callbacks=lambda end: curve(end.epoch, end.posterior, nelbo=end.nelbo, kl=end.kl),
        progress=False,
    )


def fit_point(images, settings, units, epochs, seed, curve):
    """Fit weights by SGD with momentum, with or without dropout (0.2 of pixels, 0.5 of units)."""
    n_classes = int(images.y.max()) + 1
    net = pyrobbb.mlp(images.x.shape[1], [units, units], n_classes, seed=seed)
    if settings.model == "dropout":
        rates = {0: 0.2, 2: 0.5, 4: 0.5}  # by index of the layer that follows
        layers = [
            part
            for i, layer in enumerate(net)
            for part in ([nn.Dropout(rates[i]), layer] if i in rates else [layer])
        ]
        net = nn.Sequential(*layers)
    torch.manual_seed(seed)
    x, y = torch.as_tensor(images.x), torch.as_tensor(images.y)
    optimizer = torch.optim.SGD(net.parameters(), lr=settings.lr, momentum=0.9)
    n_steps = epochs * math.ceil(len(x) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=n_steps)
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(x)).split(BATCH_SIZE):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        curve(epoch, net.eval)
        net.train()
    return net.eval()


class Curve:
    """Callback that records validation and test scores every few epochs."""

    def __init__(self, images: Images, every: int):
        self.images, self.every = images, every
        self.rows = []

    def __call__(self, epoch, snapshot, **losses):
        if epoch % self.every == 0:
            row = {"epoch": epoch, **{name: round(value, 1) for name, value in losses.items()}}
            fitted = snapshot()
            for part in ("valid", "test"):
                x, y = (getattr(self.images, f"{kind}_{part}") for kind in "xy")
                score = scored(predict(fitted, x, n_draws=8), y)
                row |= {f"{part}_{name}": score[name] for name in ("error", "nll")}
            if isinstance(fitted, pyrobbb.Posterior):
                row["test_error_at_means"] = error_at_means(fitted, x, y)
            self.rows.append(row)


def error_at_means(posterior, x, y):
    """Compute the error, in percent, of the network with its weights at the posterior means."""
    guide = posterior.guide
    means = guide.split(guide.loc.detach())
    with torch.no_grad():
        logits = torch.func.functional_call(posterior.network.net, means, torch.as_tensor(x))
    return round(100 * float((logits.argmax(-1).numpy() != y).mean()), 3)


def predict(fitted, x, n_draws=N_DRAWS):
    """Compute the predictive distribution of a posterior or of a plain module."""
    if isinstance(fitted, pyrobbb.Posterior):
        return fitted.predict(x, n_draws=n_draws, seed=0)
    with torch.no_grad():
        if fitted.training:  # dropout as an approximate posterior, Gal and Ghahramani (2016)
            torch.manual_seed(0)
            logits = torch.stack([fitted(torch.as_tensor(x)) for _ in range(n_draws)])
        else:
            logits = fitted(torch.as_tensor(x))[None]
    return pyrobbb.ClassificationPrediction([Categorical(logits=logits)], x)


def scored(prediction, y):
    return {
        "error": round(100 * float(scores.error_rate(prediction, y)), 3),
        "nll": round(float(scores.nll(prediction, y)), 5),
        "ece": round(100 * float(scores.ece(prediction, y)), 3),
    }


def evaluate(fitted, images, n_draws=N_DRAWS):
    """Score test images, rotated test images, and the detection of out-of-distribution images."""
    digits, other = (predict(fitted, x, n_draws) for x in (images.x_test, images.x_other))
    result = {"test": scored(digits, images.y_test), "rotated": {}}
    for angle in ANGLES:
        prediction = predict(fitted, rotated(images.x_test, angle), n_draws)
        result["rotated"][angle] = scored(prediction, images.y_test) | {
            "entropy": round(float(prediction.entropy.mean()), 4),
            "mutual_information": round(float(prediction.mutual_information.mean()), 4),
        }
    is_other = np.repeat([0, 1], [len(images.x_test), len(images.x_other)])
    result["other"] = {
        f"auroc_{kind}": round(
            float(
                roc_auc_score(is_other, np.concatenate([getattr(p, kind) for p in (digits, other)]))
            ),
            4,
        )
        for kind in ("entropy", "mutual_information")
    }
    return result


def means_and_scales(posterior):
    """Return the means and the scales of all weights, as two flat tensors."""
    guide = posterior.guide
    names = [name for name, _ in posterior.network.bayesian_parameters()]
    return (
        torch.cat([parts[name].flatten() for name in names])
        for parts in (guide.split(guide.loc.detach()), guide.split(guide.scale.detach()))
    )


def summarise_weights(posterior, settings):
    """Compute quantiles of the scales, and the fraction of weights that are at the prior."""
    loc, scale = means_and_scales(posterior)
    ratio = loc.abs() / scale
    widths = [math.exp(-settings.minus_log_scale1)]
    if settings.model == "mixture":
        widths.append(math.exp(-settings.minus_log_scale2))
    at_prior = torch.zeros_like(ratio, dtype=torch.bool)
    for width in widths:
        at_prior |= ((scale / width).log().abs() < 0.2) & (loc.abs() < 0.5 * width)
    return {
        "median_scale": round(float(scale.median()), 5),
        "scale_quantiles": [round(float(v), 5) for v in scale.quantile(torch.tensor([0.05, 0.95]))],
        "share_at_prior": round(float(at_prior.float().mean()), 4),
        "share_more_noise_than_signal": round(float((ratio < 1).float().mean()), 4),
    }


def draw(path, runs):
    """Draw the test error by epoch, of the predictions and of the weights at their means.

    Of the runs with a mixture prior, draw the selected one and the one with a KL weight of 1.
    """
    colors = {"sgd": "#8a8f98", "dropout": "#c8553d", "gaussian": "#e09f3e", "mixture": "#1b6ca8"}
    names = {"sgd": "SGD", "dropout": "dropout", "gaussian": "Gaussian", "mixture": "scale mixture"}
    fig, ax = plt.subplots(figsize=(8.4, 3.8), layout="constrained")
    for run in runs:
        model, curve = run["model"], run["curve"]
        color, label, kl_weight = colors[model], names[model], run["settings"]["kl_weight"]
        is_chosen = run["settings"] == asdict(CHOSEN[model])
        if not is_chosen and kl_weight < 1:
            continue
        if "posterior" in run:
            label += f", KL weight {kl_weight:g}"
            color = color if is_chosen else "#a9cbe8"
        epochs = [row["epoch"] for row in curve]
        ax.plot(epochs, [row["test_error"] for row in curve], color=color, lw=1.6, label=label)
        if "test_error_at_means" in curve[0]:
            at_means = [row["test_error_at_means"] for row in curve]
            ax.plot(epochs, at_means, color=color, lw=0.9, ls=":")
    ax.plot([], color="0.4", lw=0.9, ls=":", label="weights at their means")
    ax.set(xlabel="epoch", ylabel="test error (%)", xlim=(0, None), ylim=(1, 3.5))
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside right upper", frameon=False, fontsize=9)
    fig.savefig(path, dpi=160)


def line(run):
    test = run["test"]
    auroc = run["other"]["auroc_entropy"]
    return (
        f"{run['model']:<10} {test['error']:<8.2f} {test['nll']:<7.4f} {test['ece']:<7.2f} "
        f"{auroc:.3f}   {run['seconds']} s"
    )


if __name__ == "__main__":
    main()
