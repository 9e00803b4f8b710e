"""fit(): batches, schedule, stopping and progress around an engine's steps."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import numbers
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from .auto_engine import AutoEngine, few_threads
from .batches import ArrayBatches, LoaderBatches, open_batches
from .callbacks import Callback, EpochEnd
from .compiled_engine import CompiledEngine
from .data import ArrayLike, check_count, check_number, check_positive
from .early_stopping import Validation
from .engine import Engine, Steps, SVIEngine
from .fused import CannotFuseError, FusedELBO
from .fused_engine import Chain, FusedEngine
from .gradient_estimators import Estimator
from .guides import MeanFieldGuide, auto_normal
from .history import History
from .network import BayesianNetwork, evaluating
from .objectives import KLWeight, Objective, kl_weights, make_elbo, traced
from .optimizers import OptimizerFactory, adam_settings, as_factory
from .placement import Device, DType, Placement
from .posterior import Posterior
from .randomness import as_seed, seeded
from .schedules import Schedule, factor_of
from .warm_start import chains_of, take_up

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "svi", "fused", "compiled"]
DEFAULT_STEPS, DEFAULT_EPOCHS = 10_000, 20


def fit(
    network: BayesianNetwork,
    x: ArrayLike | DataLoader[Any],
    y: ArrayLike | None = None,
    *,
    n_data: int | None = None,
    sample_weight: ArrayLike | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    lr: float = 0.01,
    schedule: Schedule = "one_cycle",
    optimizer: OptimizerFactory = torch.optim.Adam,
    clip_norm: float | None = None,
    engine: EngineName = "auto",
    objective: Objective = "trace",
    n_particles: int = 1,
    estimator: Estimator = "reparam",
    kl_weight: KLWeight = "uniform",
    kl_warmup: float = 0.5,
    guide: Literal["mean_field", "auto_normal"] | Callable[..., Any] = "mean_field",
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    patience: int | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    start: Posterior | None = None,
    restarts: int = 1,
    seed: int | None = None,
    progress: bool = True,
    device: Device | None = None,
    dtype: DType | None = None,
    autocast: DType | None = None,
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
    sample_weight : array-like of shape (n,), optional
        How often each row counts in the log-likelihood: ``sum_i sample_weight[i] * nll_i + kl`` is
        the objective, as if row i had been observed so many times. The weights are not
        normalised: their sum takes the place of the number of rows, so that larger ones make the
        posterior narrower. At least 0, not all 0; not with a DataLoader. None: each row once.
    epochs : int, optional
        Passes over the data. None: as many as make 10,000 steps, and at least 20.
    batch_size : int
        Rows a step. The last batch of an epoch may be smaller; it then weighs less.
    lr : float
        Learning rate: the highest of the schedule.
    schedule : {"one_cycle", "cosine", "constant"} or callable
        How the learning rate goes. ``"one_cycle"`` rises over the first 30 % of the steps and falls
        to nearly 0; ``"cosine"`` falls from the start. A callable takes the part of the fit that is
        done, in [0, 1), and gives a factor.
    optimizer : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``, such as a class of torch.optim; or an
        optimiser of Pyro's, whose own learning rate then takes the place of `lr`.
    clip_norm : float, optional
        Bound on the norm of the gradient.
    engine : {"auto", "svi", "fused", "compiled"}
        How steps are taken. ``"svi"``: by Pyro's SVI, which defines what is right. ``"fused"``:
        without effect handling; see `FusedELBO`. ``"compiled"``: many fused steps in one compiled
        call. ``"auto"``: the one that will be done first. A model, guide or objective that cannot
        be fused is fitted by ``"svi"``, and a module that cannot be compiled by ``"fused"``; a line
        in the log says why.
    objective : {"trace", "mean_field"} or pyro.infer.ELBO
        ``"trace"`` samples the KL divergence, ``"mean_field"`` takes it in closed form where there
        is one.
    n_particles : int
        Draws of the weights a step.
    estimator : {"reparam", "local", "flipout"}
        ``"reparam"``: a batch shares a draw. ``"local"`` and ``"flipout"``: each row has its own,
        so that gradients are less noisy, in networks whose uncertain layers are linear or
        convolutions; see `pyrobbb.gradient_estimators`.
    kl_weight : {"uniform", "blundell"}, float or callable
        The share of the KL divergence that each batch of an epoch carries; see
        `pyrobbb.objectives.kl_weights`. A number is a factor on all of it.
    kl_warmup : float
        Part of the fit, in [0, 1), over which the weight of the KL divergence rises linearly to its
        full value. From the start at full weight, a wide net is often drawn to the prior before it
        has learnt anything, and stays there. 0: no warm-up.
    guide : {"mean_field", "auto_normal"} or callable
        `MeanFieldGuide`, Pyro's `AutoNormal` from the same start, or a Pyro guide of your own (a
        `PyroModule`), whose parameters are learnt in place.
    validation : tuple (x, y), optional
        Held-out data, of which each row counts once. The parameters of the epoch with the lowest
        validation NLL are kept; epochs of the warm-up do not count.
    patience : int, optional
        Stop after so many epochs without a lower validation NLL, counted from the warm-up's end.
    callbacks : callable or sequence of callables
        Called at the end of each epoch with an `EpochEnd`: how far the fit is, and on demand the
        posterior so far. One that returns True ends the fit. Steps are then taken an epoch at a
        time, to the same result. Of `restarts` that are not taken side by side, each calls them.
    start : Posterior, optional
        An earlier fit to take up from, instead of the module's present weights: of a network with
        the same sites, by the same kind of `guide`, one made by name. Its prior may be another. The
        guide's parameters, the point parameters and the buffers start at its own, for each of its
        chains; the optimiser's state and the schedule start anew. The posterior given stays as it
        is. During a `kl_warmup` it would drift off: pass 0 to stay near it.
    restarts : int
        Independent fits from different starts, which become the chains of one posterior:
        predictions average over them. The first starts at the module's present weights, restart r
        at those of `fresh_start` with the seed ``seed + r``, and is the same as a fit of its own
        from there. Fits that can be are taken side by side. With `start`, as many as that has
        chains.
    seed : int, optional
        Makes the fit bitwise repeatable. None: one is drawn and kept in ``posterior.settings``.
    progress : bool
        Show a progress bar.
    device : str or torch.device, optional
        Where to fit: the copy of the network and all data are moved there, and the posterior stays
        there. None: where the network is.
    dtype : torch.float32 or torch.float64, optional
        Of the copy of the network, the data and the posterior. None: that of the network.
    autocast : torch.bfloat16, optional
        Run the module, forward and backward, in bfloat16 where `torch.autocast` does so. The
        parameters of the guide, the KL divergence, all densities and the optimiser stay in
        float32, and so do `validation` and the predictions of the posterior. It pays on
        processors with arithmetic for it, and for wide layers.

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
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        callbacks = (callbacks,)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(
                "`callbacks` must be callables that take an EpochEnd, got a "
                f"{type(callback).__name__}."
            )
    if engine not in get_args(EngineName):
        raise ValueError(
            f"`engine` must be one of {', '.join(get_args(EngineName))}, got {engine!r}."
        )
    check_count("restarts", restarts)
    earlier: Sequence[Posterior | None] = [None] * restarts
    if start is not None:
        if not isinstance(guide, str):
            raise ValueError(
                "`start` needs a guide made by name, 'mean_field' or 'auto_normal': one of your "
                "own starts where you put it."
            )
        earlier = chains_of(start, restarts)
        restarts = len(earlier)
    elbo = make_elbo(objective, n_particles, estimator)
    if getattr(elbo, "estimator", "reparam") != "reparam" and engine == "svi":
        raise ValueError(
            "`estimator` 'local' or 'flipout' needs engine='fused' or 'auto': Pyro's SVI knows one "
            "draw for a batch only."
        )
    factor = factor_of(schedule)
    factory, lr = as_factory(optimizer, lr)
    check_positive("lr", lr)
    seed = as_seed(seed)
    if restarts > 1 and not isinstance(guide, str):
        raise ValueError("`restarts` needs a guide made by name, 'mean_field' or 'auto_normal'.")
    if restarts > 1 and isinstance(x, DataLoader):
        raise ValueError(
            "`restarts` needs x and y as arrays: a DataLoader has an order of its own."
        )
    placement = Placement.of(device, dtype, autocast, network.bayesian_parameters()[0][1])
    if not isinstance(guide, str) and placement.moves(network):
        raise ValueError(
            "`device` and `dtype` move the network, but not a `guide` of your own, which was made "
            "for it where it is: move both before the fit, network.to(...) and guide.to(...)."
        )

    plan = _Plan(
        x=x,
        y=y,
        n_data=n_data,
        sample_weight=sample_weight,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        factor=factor,
        optimizer=factory,
        clip_norm=clip_norm,
        engine=engine,
        objective=objective,
        elbo=elbo,
        kl_weight=kl_weight,
        kl_warmup=kl_warmup,
        guide=guide,
        validation=validation,
        patience=patience,
        callbacks=tuple(callbacks),
        progress=progress,
        placement=placement,
    )
    is_fresh = start is None
    starts = [
        _Start(fresh_start(network, seed + r) if r and is_fresh else network, seed + r, own)
        for r, own in enumerate(earlier)
    ]
    if restarts == 1 or _can_run_side_by_side(plan, network):
        chains, _ = _run(plan, starts)
    else:
        chains = []
        for own in starts:
            fitted, is_interrupted = _run(plan, [own])
            chains += fitted
            if is_interrupted:
                break
    return _as_one(chains)


@dataclass(frozen=True)
class _Plan:
    """The arguments of `fit`, checked."""

    x: Any
    y: Any
    n_data: int | None
    sample_weight: Any
    epochs: int | None
    batch_size: int
    lr: float
    factor: Callable[[float], float]
    optimizer: OptimizerFactory
    clip_norm: float | None
    engine: EngineName
    objective: Objective
    elbo: ELBO
    kl_weight: KLWeight
    kl_warmup: float
    guide: Any
    validation: Any
    patience: int | None
    callbacks: tuple[Callback, ...]
    progress: bool
    placement: Placement

    @property
    def stops_at_epochs(self) -> bool:
        """Whether something looks at the parameters after each epoch."""
        return self.validation is not None or bool(self.callbacks)


def _told(kl_weight: KLWeight) -> str | float:
    """Give what the settings say of a KL weight."""
    if isinstance(kl_weight, str):
        return kl_weight
    return "custom" if callable(kl_weight) else float(kl_weight)


@dataclass(frozen=True)
class _Start:
    """Where a fit starts: its network and seed, and an earlier fit that it takes up from."""

    network: BayesianNetwork
    seed: int
    earlier: Posterior | None


def _can_run_side_by_side(plan: _Plan, network: BayesianNetwork) -> bool:
    """Say whether several fits can share each step, and each come out as it would alone."""
    if plan.engine == "svi" or plan.guide != "mean_field" or plan.validation is not None:
        return False
    if not isinstance(plan.elbo, FusedELBO) or plan.elbo.estimator != "reparam":
        return False
    draws_or_counts = any(
        isinstance(module, nn.modules.dropout._DropoutNd)
        or any(True for _ in module.buffers(False))
        for module in network.net.modules()
    )
    like = network.bayesian_parameters()[0][1].detach()
    return not draws_or_counts and adam_settings(plan.optimizer, [like]) is not None


def _run(plan: _Plan, starts: Sequence[_Start]) -> tuple[list[Posterior], bool]:
    """Fit from each of some starts, side by side, each as it would come out alone.

    Gives them, and whether Ctrl-C has ended the fit.
    """
    networks = [plan.placement.copy(start.network) for start in starts]
    seeds = [start.seed for start in starts]
    for network in networks:
        if not network.training:  # in training mode, the modes of its parts are the user's choice
            network.train()
    network = networks[0]

    with seeded(seeds[0]), pyro.get_param_store().scope(), poutine.block():
        data = open_batches(
            network, plan.x, plan.y, plan.n_data, plan.batch_size, plan.sample_weight
        )
        epochs = plan.epochs
        if epochs is None:
            epochs = max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / data.n_batches))
        check_count("epochs", epochs)
        # While the KL divergence does not count in full, what scores best is no posterior.
        unripe = math.ceil(plan.kl_warmup * epochs)
        watch = None
        if plan.validation is not None:
            watch = Validation(network, plan.validation, seeds[0], unripe)
        guides = [_make_guide(plan.guide, own, data) for own in networks]
        for start, own, its_guide in zip(starts, networks, guides, strict=True):
            if start.earlier is not None:
                take_up(start.earlier, own, its_guide)
        guide = guides[0]
        learnt = [parameter for _, parameter in network.point_parameters()]
        learnt += guide.parameters() if isinstance(guide, nn.Module) else []
        if not learnt:
            raise ValueError(
                "`guide` has no parameters to learn: make it a PyroModule that owns them. Those of "
                "pyro.param live in Pyro's global store, which fit leaves alone."
            )
        stepper = _make_engine(plan, networks, guides, seeds, learnt, data, epochs)
        _tell_start(stepper, networks, data, epochs)
        generators = [torch.Generator().manual_seed(own) for own in seeds]
        shares = kl_weights(plan.kl_weight, data.n_batches)
        taken: list[np.ndarray] = []  # number of each step handed out, and its rows
        losses: list[np.ndarray] = []

        def steps_of(which: range) -> Iterator[Steps]:
            for batches in data.epochs(which, generators):
                n_rows, number = batches.n_rows, batches.number
                done = number / (epochs * data.n_batches)
                warm = np.minimum(1.0, done / plan.kl_warmup) if plan.kl_warmup else 1.0
                # The loss below is n_data / n_rows times the paper's F_i = pi_i KL + nll_i.
                share = shares[number % data.n_batches]
                if plan.kl_weight == "uniform" or isinstance(plan.kl_weight, numbers.Real):
                    # It goes by rows, so that a ragged batch has its part.
                    share = shares.sum() * n_rows / data.n_data
                taken.append(np.stack([number, n_rows]))
                yield Steps(
                    batches.x,
                    batches.y,
                    batches.rows,
                    n_rows,
                    n_data=data.n_data,
                    kl_weight=warm * share * data.n_data / n_rows,
                    step_weight=n_rows / data.batch_size,
                    lr=plan.lr * np.array([plan.factor(part) for part in done.tolist()]),
                    row_weight=batches.row_weight,
                )

        def posteriors_of(networks: list[BayesianNetwork], guides: list[Any]) -> list[Posterior]:
            all_losses = np.concatenate([np.empty((0, 2, len(networks))), *losses])
            taken_losses = all_losses[~np.isnan(all_losses[:, 0, 0])]
            number, n_rows = np.concatenate(taken, 1)[:, : len(taken_losses)]
            epoch = number // data.n_batches
            validation_nll = np.array([] if watch is None else watch.nll)
            settings = _settings(plan, data, epochs)
            posteriors = []
            for chain, own in enumerate(zip(networks, guides, seeds, strict=True)):
                its_network, its_guide, seed = own
                its_network.autocast = None
                nll, kl = taken_losses[:, :, chain].T
                history = History(nll + kl, nll, kl, epoch, n_rows, validation_nll)
                its_settings = {"engine": stepper.name, **settings, "seed": seed}
                posteriors.append(
                    Posterior(its_network.eval(), its_guide, history, data.example[0], its_settings)
                )
            return posteriors

        def tell(steps: Steps) -> bool:
            """Call the callbacks at the end of an epoch; say whether one ends the fit."""
            nll, kl = np.concatenate(losses[-data.n_batches :])[-data.n_batches :].mean((0, 2))
            end = EpochEnd(
                epoch=n_done // data.n_batches,
                n_epochs=epochs,
                n_steps=n_done,
                nelbo=float(nll + kl),
                nll=float(nll),
                kl=float(kl),
                kl_weight=float(steps.kl_weight[-1]),
                lr=float(steps.lr[-1]),
                validation_nll=None if watch is None else watch.nll[-1],
                seconds=time.perf_counter() - began,
                _snapshot=lambda: _as_one(posteriors_of(*copy.deepcopy((networks, guides)))),
            )
            with seeded(seeds[0] + end.epoch):  # so that what they draw does not change the fit
                answers = [callback(end) for callback in plan.callbacks]
            return any(answer is True for answer in answers)

        n_done = 0  # whole pieces
        began = time.perf_counter()
        is_interrupted = False
        try:
            bar = tqdm(total=epochs, desc="fit", unit="epoch", disable=not plan.progress)
            n_learnt = len(networks) * sum(tensor.numel() for tensor in learnt)
            with bar, few_threads(n_learnt):
                stretch = 1 if plan.stops_at_epochs else epochs
                for first in range(0, epochs, stretch):
                    stream = itertools.chain.from_iterable(
                        steps_of(some)
                        for some in _in_turn(range(first, first + stretch), stepper, data)
                    )
                    for steps in _in_pieces(stream, stepper):
                        losses.append(np.full((len(steps), 2, len(networks)), np.nan))
                        stepper.run(steps, losses[-1])
                        n_done += len(steps)
                        _show(bar, n_done // data.n_batches, losses[-1][-1])
                    stepper.sync()
                    is_over = watch is not None and watch.is_over(guide, learnt, plan.patience)
                    if plan.callbacks:
                        is_over = tell(steps) or is_over
                    if is_over:
                        break
        except KeyboardInterrupt:
            is_interrupted = True
            n_taken = sum(int((~np.isnan(piece[:, 0, 0])).sum()) for piece in losses)
            logger.warning("Interrupted after %d steps: giving what is fitted so far.", n_taken)
            stepper.sync()
        if watch is not None:
            watch.restore(learnt)

    posteriors = posteriors_of(networks, guides)
    history = posteriors[0].history
    logger.info(
        "Fitted %d steps in %.3g s by engine=%r: the negative ELBO is %.5g in the last epoch.",
        len(history.nelbo),
        time.perf_counter() - began,
        stepper.name,
        history.per_epoch().nelbo[-1] if len(history.nelbo) else math.nan,
    )
    return posteriors, is_interrupted


def _tell_start(
    stepper: Engine,
    networks: Sequence[BayesianNetwork],
    data: ArrayBatches | LoaderBatches,
    epochs: int,
) -> None:
    weights = [parameter for _, parameter in networks[0].bayesian_parameters()]
    logger.info(
        "Fitting %d weights to %d rows by engine=%r: %d steps in %d epochs, %d fit(s) side by "
        "side, on %s in %s.",
        sum(parameter.numel() for parameter in weights),
        data.n_data,
        stepper.name,
        epochs * data.n_batches,
        epochs,
        len(networks),
        weights[0].device,
        str(weights[0].dtype).removeprefix("torch."),
    )


def _as_one(chains: Sequence[Posterior]) -> Posterior:
    return chains[0] if len(chains) == 1 else Posterior.of_chains(chains)


def _settings(plan: _Plan, data: ArrayBatches | LoaderBatches, epochs: int) -> dict[str, Any]:
    """Give what a posterior tells of how it was fitted."""
    objective = plan.objective
    settings = {
        "objective": objective if isinstance(objective, str) else type(objective).__name__,
        "kl_weight": _told(plan.kl_weight),
        "kl_warmup": float(plan.kl_warmup),
        "epochs": int(epochs),
        "batch_size": int(data.batch_size),
        "n_data": int(data.n_data),
        "lr": float(plan.lr),
        "n_particles": plan.elbo.num_particles,
    }
    if plan.sample_weight is not None:
        settings["is_weighted"] = True
    if plan.placement.autocast is not None:
        settings["autocast"] = str(plan.placement.autocast).removeprefix("torch.")
    return settings


def fresh_start(network: BayesianNetwork, seed: int) -> BayesianNetwork:
    """Give a copy of a network whose module is initialised anew, by its own `reset_parameters`.

    Frozen parameters (``requires_grad=False``) stay what they are.

    Restart r > 0 of ``fit(network, ..., restarts=4, seed=s)`` is
    ``fit(fresh_start(network, s + r), ..., seed=s + r)``.

    Parameters
    ----------
    network : BayesianNetwork
    seed : int
    """
    network = copy.deepcopy(network)
    frozen = [(p, p.clone()) for p in network.net.parameters() if not p.requires_grad]
    with seeded(as_seed(seed)), torch.no_grad():
        module: Any
        for module in network.net.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                continue  # its buffers belong to its frozen parameters
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif any(parameter.requires_grad for parameter in own):
                logger.warning(
                    "%s has no reset_parameters: each restart starts from its present weights.",
                    type(module).__name__,
                )
        for parameter, before in frozen:
            parameter.copy_(before)
    return network


def _make_engine(
    plan: _Plan,
    networks: list[BayesianNetwork],
    guides: list[Any],
    seeds: list[int],
    learnt: list[nn.Parameter],
    data: ArrayBatches | LoaderBatches,
    epochs: int,
) -> Engine:
    if plan.engine != "svi":
        try:
            if not isinstance(plan.elbo, FusedELBO):
                raise CannotFuseError(f"the objective is a {type(plan.elbo).__name__}")
            chains = [Chain(*own) for own in zip(networks, guides, seeds, strict=True)]
            fused = FusedEngine(
                chains,
                closed_form_kl=plan.elbo.objective == "mean_field",
                estimator=plan.elbo.estimator,
                n_particles=plan.elbo.num_particles,
                optimizer=plan.optimizer,
                clip_norm=plan.clip_norm,
            )
        except CannotFuseError as error:
            if getattr(plan.elbo, "estimator", "reparam") != "reparam":
                raise ValueError(f"`estimator` {plan.elbo.estimator!r}: {error}.") from error
            level = logging.INFO if plan.engine == "auto" else logging.WARNING
            logger.log(level, "The steps are taken by engine='svi': %s.", error)
        else:
            if plan.engine == "fused":
                return fused
            if isinstance(data, LoaderBatches):
                if plan.engine == "compiled":
                    logger.warning(
                        "A DataLoader gives its batches one by one: the steps are taken by "
                        "engine='fused'."
                    )
                return fused
            ragged = data.n_data % data.batch_size > 0
            n_steps = epochs * data.n_batches
            n_in_a_row = data.n_batches if plan.stops_at_epochs else n_steps
            if plan.engine == "compiled":
                return CompiledEngine(fused, n_in_a_row=n_in_a_row, ragged=ragged)
            return AutoEngine(fused, n_steps, n_in_a_row=n_in_a_row, ragged=ragged)
    return SVIEngine(
        networks[0],
        guides[0],
        elbo=traced(plan.elbo),
        optimizer=plan.optimizer,
        parameters=learnt,
        clip_norm=plan.clip_norm,
    )


def _in_turn(epochs: range, engine: Engine, data: ArrayBatches | LoaderBatches) -> Iterator[range]:
    """Cut epochs to as many as an engine takes at once, and to one if it takes fewer steps."""
    first = epochs.start
    while first < epochs.stop:
        last = min(first + max(engine.at_once // data.n_batches, 1), epochs.stop)
        yield range(first, last)
        first = last


def _in_pieces(stream: Iterable[Steps], engine: Engine) -> Iterator[Steps]:
    """Cut and join steps to as many as an engine is best given at once."""
    waiting: Steps | None = None
    for steps in stream:
        if waiting is not None:
            if waiting.x is steps.x:
                steps = waiting.then(steps)
            else:
                yield waiting
        while len(steps) > (n := engine.at_once):  # which may change while it takes them
            yield steps[:n]
            steps = steps[n:]
        waiting = steps
    if waiting is not None:
        yield waiting


def _make_guide(
    guide: str | Callable[..., Any], network: BayesianNetwork, data: ArrayBatches | LoaderBatches
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
        if isinstance(made, MeanFieldGuide) and made.has_points:
            raise ValueError(
                "`guide` is pruned and cannot be fitted further: weights that are exactly 0 have "
                "no density, and the ELBO is minus infinity."
            )
    with torch.no_grad(), seeded(0), evaluating(network):
        made(*data.example)  # autoguides make their parameters when they first run
    return made


def _show(bar: Any, n_epochs: int, losses: np.ndarray) -> None:
    if n_epochs > bar.n:
        nll, kl = losses.mean(-1)
        bar.set_postfix_str(f"nelbo={nll + kl:.4g}, nll={nll:.4g}, kl={kl:.4g}", refresh=False)
        bar.update(n_epochs - bar.n)
