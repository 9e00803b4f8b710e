"""fit(): batches, schedule, stopping and progress around an engine's steps."""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from .data import ArrayLike, check_count, check_number, check_positive
from .engine import Batch, Engine, OptimizerFactory, StepLosses, SVIEngine
from .guides import MeanFieldGuide, auto_normal
from .history import History
from .network import BayesianNetwork, evaluating
from .objectives import KLWeight, Objective, kl_weights, make_elbo
from .posterior import Posterior
from .prediction import make_prediction
from .randomness import as_seed, seeded
from .sampling import DrawnDistributions

logger = logging.getLogger(__name__)

Schedule = Literal["one_cycle", "cosine", "constant"] | Callable[[float], float]
DEFAULT_STEPS, DEFAULT_EPOCHS = 4000, 20
VALIDATION_DRAWS = 16


def fit(
    network: BayesianNetwork,
    x: ArrayLike | DataLoader[Any],
    y: ArrayLike | None = None,
    *,
    n_data: int | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    lr: float = 0.01,
    schedule: Schedule = "one_cycle",
    optimizer: OptimizerFactory = torch.optim.Adam,
    clip_norm: float | None = None,
    engine: Literal["auto", "svi"] = "auto",
    objective: Objective = "trace",
    n_particles: int = 1,
    kl_weight: KLWeight = "uniform",
    kl_warmup: float = 0.5,
    guide: Literal["mean_field", "auto_normal"] | Callable[..., Any] = "mean_field",
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    patience: int | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Posterior:
    """Fit the posterior of a network by Bayes by Backprop.

    Each step draws the weights once (or `n_particles` times) and descends the gradient of
    ``n_data / n_rows * nll + kl`` on a minibatch. The network given is not changed: the posterior
    holds a copy. Pyro's param store is not touched, nor the caller's random state. Ctrl-C ends the
    fit and gives what has been fitted so far. Fits in several threads wait for each other: Pyro's
    handlers and torch's random state belong to the process.

    Parameters
    ----------
    network : BayesianNetwork
    x : array-like of shape (n, ...), or DataLoader
        Inputs; or a loader of batches ``(x, y)``, with `n_data`.
    y : array-like of shape (n, ...)
        Observations, in the shape that the likelihood gives them.
    n_data : int, optional
        Number of rows behind a DataLoader; never guessed.
    epochs : int, optional
        Passes over the data. None: as many as make 4000 steps, and at least 20.
    batch_size : int
        Rows a step. The last batch of an epoch may be smaller; it then weighs less.
    lr : float
        Learning rate: the highest of the schedule.
    schedule : {"one_cycle", "cosine", "constant"} or callable
        How the learning rate goes. ``"one_cycle"`` rises over the first 30 % of the steps and falls
        to nearly 0; ``"cosine"`` falls from the start. A callable takes the part of the fit that is
        done, in [0, 1), and gives a factor.
    optimizer : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``, such as a class of torch.optim.
    clip_norm : float, optional
        Bound on the norm of the gradient.
    engine : {"auto", "svi"}
        How steps are taken. ``"svi"``: Pyro's SVI.
    objective : {"trace", "mean_field"} or pyro.infer.ELBO
        ``"trace"`` samples the KL divergence, ``"mean_field"`` takes it in closed form where there
        is one.
    n_particles : int
        Draws of the weights a step.
    kl_weight : {"uniform", "blundell"} or callable
        The share of the KL divergence that each batch of an epoch carries; see
        `pyrobbb.objectives.kl_weights`.
    kl_warmup : float
        Part of the fit, in [0, 1), over which the weight of the KL divergence rises linearly to its
        full value. From the start at full weight, a wide net is often drawn to the prior before it
        has learnt anything, and stays there. 0: no warm-up.
    guide : {"mean_field", "auto_normal"} or callable
        `MeanFieldGuide`, Pyro's `AutoNormal` from the same start, or a Pyro guide of your own (a
        `PyroModule`), whose parameters are learnt in place.
    validation : tuple (x, y), optional
        Held-out data. The parameters of the epoch with the lowest validation NLL are kept; epochs
        of the warm-up do not count.
    patience : int, optional
        Stop after so many epochs without a lower validation NLL, counted from the warm-up's end.
    seed : int, optional
        Makes the fit bitwise repeatable. None: one is drawn and kept in ``posterior.settings``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Posterior

    Raises
    ------
    TypeError, ValueError
        If an argument or the data are not as described.
    NonFiniteLossError
        At once when a loss or gradient is NaN or infinite, with the step and the site or row.

    References
    ----------
    Blundell et al. (2015), "Weight Uncertainty in Neural Networks".
    """
    if not isinstance(network, BayesianNetwork):
        raise TypeError(
            f"`network` must be a BayesianNetwork, got {type(network).__name__}: wrap the module "
            "with BayesianNetwork(net)."
        )
    check_positive("lr", lr)
    check_count("batch_size", batch_size)
    check_number("kl_warmup", kl_warmup)
    if not 0 <= kl_warmup < 1:
        raise ValueError(f"`kl_warmup` must be a part of the fit, in [0, 1), got {kl_warmup}.")
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    if patience is not None:
        check_count("patience", patience)
        if validation is None:
            raise ValueError("`patience` needs `validation` data to watch.")
    if engine not in ("auto", "svi"):
        raise ValueError(f"`engine` must be 'auto' or 'svi', got {engine!r}.")
    elbo = make_elbo(objective, n_particles)
    factor = _factor_of(schedule)
    if not callable(optimizer):
        raise TypeError(f"`optimizer` must be a class such as torch.optim.Adam, got {optimizer!r}.")
    seed = as_seed(seed)
    network = copy.deepcopy(network)
    if not network.training:  # in training mode, the modes of its parts are the user's choice
        network.train()

    with seeded(seed), pyro.get_param_store().scope(), poutine.block():
        data = _open(network, x, y, n_data, batch_size)
        if epochs is None:
            epochs = max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / data.n_batches))
        check_count("epochs", epochs)
        # While the KL divergence does not count in full, what scores best is no posterior.
        unripe = math.ceil(kl_warmup * epochs)
        watch = None if validation is None else _Validation(network, validation, seed, unripe)
        guide = _make_guide(guide, network, data)
        learnt = [parameter for _, parameter in network.point_parameters()]
        learnt += guide.parameters() if isinstance(guide, nn.Module) else []
        if not learnt:
            raise ValueError(
                "`guide` has no parameters to learn: make it a PyroModule that owns them. Those of "
                "pyro.param live in Pyro's global store, which fit leaves alone."
            )
        stepper: Engine = SVIEngine(
            network, guide, elbo=elbo, optimizer=optimizer, parameters=learnt, clip_norm=clip_norm
        )
        shares = kl_weights(kl_weight, data.n_batches)
        taken: list[tuple[int, int]] = []  # epoch and rows of each batch handed out
        losses: list[StepLosses] = []

        def batches(first_epoch: int, last_epoch: int) -> Iterator[Batch]:
            for epoch in range(first_epoch, last_epoch):
                for i, (rows, targets) in enumerate(data):
                    done = (epoch + i / data.n_batches) / epochs
                    warm = min(1.0, done / kl_warmup) if kl_warmup else 1.0
                    # The loss below is n_data / n_rows times the paper's F_i = pi_i KL + nll_i. A
                    # uniform share goes by rows, so that a ragged batch has its part.
                    share = len(rows) / data.n_data
                    if kl_weight != "uniform":
                        share = float(shares[min(i, len(shares) - 1)])
                    taken.append((epoch, len(rows)))
                    yield Batch(
                        rows,
                        targets,
                        n_data=data.n_data,
                        kl_weight=warm * share * data.n_data / len(rows),
                        step_weight=len(rows) / data.batch_size,
                        lr=lr * factor(done),
                    )

        stretch = epochs if watch is None else 1  # an engine may run on to the end of a stretch
        try:
            with tqdm(total=epochs, desc="fit", unit="epoch", disable=not progress) as bar:
                for first in range(0, epochs, stretch):
                    for step in stepper.run(batches(first, first + stretch)):
                        losses.append(step)
                        _show(bar, taken[len(losses) - 1][0], step)
                    if watch is not None and watch.is_over(guide, learnt, patience):
                        break
                bar.update(taken[-1][0] + 1 - bar.n)
        except KeyboardInterrupt:
            logger.warning("Interrupted after %d steps: giving what is fitted so far.", len(losses))
        if watch is not None:
            watch.restore(learnt)
        network.eval()

    steps = np.array(taken[: len(losses)], dtype=int).reshape(-1, 2)
    parts = np.array([(s.nelbo, s.nll, s.kl) for s in losses]).reshape(-1, 3).T
    validation_nll = np.array([] if watch is None else watch.nll)
    history = History(parts[0], parts[1], parts[2], steps[:, 0], steps[:, 1], validation_nll)
    settings = {
        "engine": "svi",
        "objective": objective if isinstance(objective, str) else type(objective).__name__,
        "kl_weight": kl_weight if isinstance(kl_weight, str) else "custom",
        "kl_warmup": float(kl_warmup),
        "epochs": int(epochs),
        "batch_size": int(data.batch_size),
        "n_data": int(data.n_data),
        "lr": float(lr),
        "n_particles": elbo.num_particles,
        "seed": seed,
    }
    return Posterior(network, guide, history, data.example[0], settings)


class _ArrayBatches:
    """Shuffled minibatches of tensors; the order comes from torch's random state."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int) -> None:
        self._x, self._y = x, y
        self.n_data = len(x)
        self.batch_size = min(batch_size, len(x))
        self.n_batches = math.ceil(len(x) / self.batch_size)
        self.example = x[:1].clone(), y[:1].clone()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.n_batches == 1:
            yield self._x, self._y
            return
        order = torch.randperm(self.n_data).to(self._x.device)
        for rows in order.split(self.batch_size):
            yield self._x[rows], self._y[rows]


class _LoaderBatches:
    """The batches of a DataLoader, checked and brought to the network's device and dtype."""

    def __init__(self, network: BayesianNetwork, loader: DataLoader[Any], n_data: int) -> None:
        self._network, self._loader = network, loader
        x, y = network.prepare(*self._pair(next(iter(loader))))
        self.n_data = n_data
        self.batch_size = loader.batch_size or len(x)
        try:
            self.n_batches = len(loader)
        except TypeError:  # an IterableDataset without a length
            self.n_batches = math.ceil(n_data / self.batch_size)
        self.example = x[:1].clone(), y[:1].clone()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A stream may have no end: what has no length is cut into epochs of n_data rows.
        for batch in itertools.islice(self._loader, self.n_batches):
            yield self._network.prepare(*self._pair(batch))

    @staticmethod
    def _pair(batch: Any) -> tuple[ArrayLike, ArrayLike]:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"`x` must be a DataLoader of pairs (x, y), but it gives a {type(batch).__name__}."
            )
        return batch[0], batch[1]


def _open(
    network: BayesianNetwork,
    x: ArrayLike | DataLoader[Any],
    y: ArrayLike | None,
    n_data: int | None,
    batch_size: int,
) -> _ArrayBatches | _LoaderBatches:
    if isinstance(x, DataLoader):
        if y is not None:
            raise ValueError("`y` must be left out where `x` is a DataLoader of pairs (x, y).")
        if n_data is None:
            raise ValueError("`n_data`, the size of the data set, must be given with a DataLoader.")
        check_count("n_data", n_data)
        return _LoaderBatches(network, x, n_data)
    if y is None:
        raise ValueError("`y` is missing: pass fit(network, x, y).")
    rows, targets = network.prepare(x, y)
    has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    if has_batch_norm and (
        len(rows) == 1 or (len(rows) > batch_size and len(rows) % batch_size == 1)
    ):
        raise ValueError(
            f"`batch_size` {batch_size} leaves a last batch of 1 of the {len(rows)} rows, of which "
            "batch norm can take no variance: choose another."
        )
    if n_data not in (None, len(rows)):
        raise ValueError(f"`n_data` is {n_data}, but x has {len(rows)} rows: leave it out.")
    return _ArrayBatches(rows, targets, batch_size)


def _make_guide(
    guide: str | Callable[..., Any], network: BayesianNetwork, data: _ArrayBatches | _LoaderBatches
) -> Callable[..., Any]:
    made: Callable[..., Any]
    if guide == "mean_field":
        made = MeanFieldGuide(network, data.example[0])
    elif guide == "auto_normal":
        made = auto_normal(network)
    elif isinstance(guide, str | type) or not callable(guide):
        raise ValueError(
            f"`guide` must be 'mean_field', 'auto_normal' or a Pyro guide, got {guide!r}."
        )
    else:
        made = guide
    with torch.no_grad(), seeded(0), evaluating(network):
        made(*data.example)  # autoguides make their parameters when they first run
    return made


class _Validation:
    """Watches the negative log predictive density of held-out data; keeps the best parameters."""

    def __init__(
        self,
        network: BayesianNetwork,
        data: tuple[ArrayLike, ArrayLike],
        seed: int,
        unripe: int,
    ) -> None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise TypeError(f"`validation` must be a pair (x, y), got a {type(data).__name__}.")
        self._network, self._seed, self._unripe = network, seed, unripe
        try:
            self._x, self._y = network.prepare(*data)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`validation`: {error}") from None
        self.nll: list[float] = []
        self._best: list[Tensor] = []

    def is_over(
        self, guide: Callable[..., Any], learnt: list[nn.Parameter], patience: int | None
    ) -> bool:
        """Score the parameters of an epoch; say whether patience is at its end."""
        with evaluating(self._network):
            distributions = DrawnDistributions(
                self._network,
                guide,
                self._x,
                n_draws=VALIDATION_DRAWS,
                seed=self._seed,  # the same noise each time, so that epochs are comparable
                max_memory=2**28,
            )
            prediction = make_prediction(distributions, self._x)
            self.nll.append(-float(prediction.log_prob(self._y).mean()))
        ripe = self.nll[self._unripe :]
        if not ripe:
            return False
        since_best = len(ripe) - 1 - int(np.argmin(ripe))
        if since_best == 0:
            self._best = [tensor.detach().clone() for tensor in self._state(learnt)]
        return patience is not None and since_best >= patience

    def restore(self, learnt: list[nn.Parameter]) -> None:
        """Put the best parameters and buffers back."""
        with torch.no_grad():
            for tensor, best in zip(self._state(learnt), self._best, strict=False):
                tensor.copy_(best)

    def _state(self, learnt: list[nn.Parameter]) -> list[Tensor]:
        return [*learnt, *self._network.buffers()]


def _factor_of(schedule: Schedule) -> Callable[[float], float]:
    """Give the factor on the learning rate as a function of the part of the fit that is done."""

    def cosine(part: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * part))

    def one_cycle(part: float) -> float:
        rise = 0.3
        if part < rise:
            return 0.04 + 0.96 * (1 - cosine(part / rise))
        return cosine((part - rise) / (1 - rise))

    named: dict[str, Callable[[float], float]] = {
        "one_cycle": one_cycle,
        "cosine": cosine,
        "constant": lambda part: 1.0,
    }
    if callable(schedule):
        return schedule
    if schedule not in named:
        raise ValueError(
            f"`schedule` must be one of {', '.join(named)}, or a callable, got {schedule!r}."
        )
    return named[schedule]


def _show(bar: Any, epoch: int, step: StepLosses) -> None:
    if epoch > bar.n:
        bar.set_postfix_str(
            f"nelbo={step.nelbo:.4g}, nll={step.nll:.4g}, kl={step.kl:.4g}", refresh=False
        )
        bar.update(epoch - bar.n)
