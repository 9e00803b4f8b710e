"""fit(): its arguments, checked, and one or several runs from different starts."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import DataLoader

from .._core.arrays import ArrayLike, check_count, check_number, check_positive
from .._core.distributed import Team
from .._core.random_state import as_seed, seeded
from ..elbo.gradient_estimators import Estimator
from ..elbo.objectives import KLWeight, Objective, make_elbo
from ..engines.optimizers import OptimizerFactory, as_factory
from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior
from ..streams import Parquet
from .callbacks import Callback
from .checkpoints import stored_seed
from .config import EngineName, Plan, Start, Together, can_run_side_by_side
from .loop import as_one, run
from .placement import Device, DType, Placement
from .schedules import Schedule, factor_of
from .warm_start import chains_of

logger = logging.getLogger(__name__)


def fit(
    network: BayesianNetwork,
    x: ArrayLike | Parquet | DataLoader[Any],
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
    checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None,
    processes: Together = "same_noise",
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
    x : array-like of shape (n, ...), streams.Parquet, or DataLoader
        Inputs; or files that hold y too; or a loader of batches ``(x, y)``, with `n_data`. An array
        that is mapped into memory (`numpy.memmap`) and parquet files are read chunk by chunk, in
        constant memory, and shuffled through a buffer of 2**17 rows or 128 MiB: see
        docs/scaling.md.
    y : array-like of shape (n, ...)
        Observations, in the shape that the likelihood gives them.
    n_data : int, optional
        Number of different rows behind a DataLoader; never guessed. A stream's are counted.
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
    checkpoint : path-like, optional
        A folder to write down in how far the fit is. Called again with the same arguments, after a
        crash, a fit goes on from there and ends as if nothing had been, to the last bit; one that
        was over is given at once. Two checkpoints take turns, ``checkpoint-1`` and
        ``checkpoint-2``: if the last is damaged or could not be written, a warning says so and the
        one before it counts. `Posterior.load` reads each. Needs a guide made by name; a DataLoader
        must give its batches in an order that comes from torch's random state.
    every : int, optional
        Steps between checkpoints, rounded up to what the engine takes at once. None: about a
        minute.
    processes : {"same_noise", "own_noise", "alone"}
        What several processes do that torchrun has started, or that have joined in a process group
        of torch.distributed. Each is given all of x and y, takes its part of every batch, and ends
        with the same posterior. With ``"same_noise"`` all draw the same weights in a step: the fit
        is that of one process, up to rounding. With ``"own_noise"`` each draws its own, so that
        the part of the gradient's variance that comes from the weights is divided by their number.
        ``"alone"``: this process fits by itself. See docs/scaling.md.
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
    if epochs is not None:
        check_count("epochs", epochs)
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
    factor_of(schedule)  # raises if there is none
    factory, lr = as_factory(optimizer, lr)
    check_positive("lr", lr)
    if processes not in get_args(Together):
        raise ValueError(
            f"`processes` must be one of {', '.join(get_args(Together))}, got {processes!r}."
        )
    team = Team() if processes == "alone" else Team.current()
    if every is not None:
        check_count("every", every)
    folder = None
    if checkpoint is not None:
        folder = Path(checkpoint)
        if not isinstance(guide, str):
            raise ValueError(
                "`checkpoint` needs a guide made by name, 'mean_field' or 'auto_normal': one of "
                "your own is not stored."
            )
        if seed is None:
            seed = stored_seed(folder)
    seed = team.broadcast(as_seed(seed))
    if restarts > 1 and not isinstance(guide, str):
        raise ValueError("`restarts` needs a guide made by name, 'mean_field' or 'auto_normal'.")
    if restarts > 1 and isinstance(x, DataLoader | Parquet | np.memmap):
        raise ValueError(
            f"`restarts` needs x and y in memory, got a {type(x).__name__}: fit one after another."
        )
    placement = Placement.of(device, dtype, autocast, network.bayesian_parameters()[0][1])
    if not isinstance(guide, str) and placement.moves(network):
        raise ValueError(
            "`device` and `dtype` move the network, but not a `guide` of your own, which was made "
            "for it where it is: move both before the fit, network.to(...) and guide.to(...)."
        )

    plan = Plan(
        x=x,
        y=y,
        n_data=n_data,
        sample_weight=sample_weight,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
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
        every=every,
        team=team,
        processes=processes,
        progress=progress,
        placement=placement,
    )
    is_fresh = start is None
    starts = [
        Start(fresh_start(network, seed + r) if r and is_fresh else network, seed + r, own)
        for r, own in enumerate(earlier)
    ]
    if restarts == 1 or can_run_side_by_side(plan, network):
        return as_one(run(plan, starts, folder)[0])
    chains = []
    for r, own in enumerate(starts):
        fitted, is_interrupted = run(plan, [own], folder and folder / f"restart-{r}")
        chains += fitted
        if is_interrupted:
            break
    return as_one(chains)


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
