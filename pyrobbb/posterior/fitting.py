"""fit(): the function that fits the posterior of a network to data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from .._core.arrays import ArrayLike
from .._core.signatures import suggests_arguments
from .._core.trees import InputsLike
from ..elbo.gradient_estimators import Estimator
from ..elbo.objectives import KLWeights, Objective
from ..engines.optimizers import OptimizerFactory
from ..model.guides import GuideName
from ..model.network import BayesianNetwork
from ..streams import Parquet
from ..training.cached_features import fit_chains_on_features
from ..training.callbacks import Callback
from ..training.config import EngineName, FitConfig, Init, ProcessMode
from ..training.placement import Device, DType
from ..training.restarts import fit_chains
from ..training.schedules import Schedule
from .posterior import Posterior


@suggests_arguments()
def fit(
    network: BayesianNetwork,
    x: InputsLike | Parquet | DataLoader[Any],
    y: ArrayLike | None = None,
    *,
    n_data: int | None = None,
    sample_weight: ArrayLike | None = None,
    rows: Sequence[ArrayLike] | None = None,
    validation: tuple[InputsLike, ArrayLike] | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    lr: float = 0.01,
    schedule: Schedule = "one_cycle",
    optimizer: OptimizerFactory = torch.optim.Adam,
    clip_norm: float | None = None,
    objective: Objective = "trace",
    n_particles: int = 1,
    estimator: Estimator = "reparam",
    kl_weight: KLWeights = "uniform",
    kl_warmup: float = 0.5,
    guide: GuideName | Callable[..., Any] = "mean_field",
    start: Posterior | None = None,
    init: Init | None = None,
    restarts: int = 1,
    patience: int | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    progress: bool = True,
    seed: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None,
    resume: bool = False,
    engine: EngineName = "auto",
    processes: ProcessMode = "same_noise",
    device: Device | None = None,
    dtype: DType | None = None,
    autocast: DType | None = None,
    cache_features: bool | str | os.PathLike[str] = False,
) -> Posterior:
    """Fit the posterior of a network by Bayes by Backprop.

    Each step draws the weights once (or `n_particles` times) and takes a gradient step on
    ``n_data / n_rows * nll + kl`` of a minibatch. The network is not changed: the posterior holds a
    copy. Neither Pyro's param store nor the caller's random state is touched. Ctrl-C ends the fit
    and returns the posterior so far, whose settings then have ``is_interrupted=True``. Fits in
    several threads take turns, engine call by engine call, because Pyro's handlers and torch's
    random state are global to the process; predictions in other threads go on. Modes such as
    `torch.no_grad` around the call have no effect on it. While ``engine="svi"`` or a module with
    dropout is fitted, no other thread may draw from torch's default generator or seed it, if the
    fit is to be repeatable.

    The arguments below are in this order:

    - Data: `network`, `x`, `y`, `n_data`, `sample_weight`, `rows`, `validation`.
    - Steps: `epochs`, `batch_size`, `lr`, `schedule`, `optimizer`, `clip_norm`.
    - Objective: `objective`, `n_particles`, `estimator`, `kl_weight`, `kl_warmup`.
    - Guide and start: `guide`, `start`, `init`, `restarts`.
    - Watching and stopping: `patience`, `callbacks`, `progress`.
    - Repeating and resuming: `seed`, `checkpoint`, `every`, `resume`.
    - Engine and hardware: `engine`, `processes`, `device`, `dtype`, `autocast`,
      `cache_features`.

    Parameters
    ----------
    network : BayesianNetwork
    x : array-like of shape (n, ...), streams.Parquet, or DataLoader
        Inputs; or files that contain y too; or a loader of batches ``(x, y)``, with `n_data`.
        Instead of one array, also nested tuples and mappings of arrays, each with a row per
        observation: the positional arguments or keywords of the module; see docs/inputs.md.
        Memory-mapped arrays (`numpy.memmap`) and parquet files are read chunk by chunk, in constant
        memory, and shuffled through a buffer of 2**17 rows or 128 MiB: see docs/scaling.md.
    y : array-like of shape (n, ...)
        Observations, in the shape of the likelihood's event.
    n_data : int, optional
        Number of distinct rows of a DataLoader, which is not inferred from it.
    sample_weight : array-like of shape (n,), optional
        Weight of each row in the log-likelihood: the objective is
        ``sum_i sample_weight[i] * nll_i + kl``, as if row i had been observed that many times. The
        weights are not normalised: their sum takes the place of the number of rows, so larger
        weights make the posterior narrower. At least 0, not all 0; not with a DataLoader. None: 1.
    rows : sequence of array-like of int, optional
        Indices of the rows of x that each restart is fitted to, one array per restart: for instance
        to leave out a fold of its own, for cross-validation. Arrays of the same length are fitted
        side by side. With x and y in memory only. None: all rows.
    validation : tuple (x, y), optional
        Held-out data, each row with weight 1. The parameters of the epoch with the lowest
        validation NLL are kept; epochs of the warm-up are not considered.
    epochs : int, optional
        Passes over the data. None: enough for 10,000 steps, and at least 20.
    batch_size : int
        Rows per step. The last batch of an epoch may be smaller, and then has less weight.
    lr : float
        The highest learning rate of the schedule.
    schedule : {"one_cycle", "cosine", "constant"} or callable
        Learning rate schedule. ``"one_cycle"`` rises over the first 30 % of the steps and then
        falls to nearly 0; ``"cosine"`` falls from the start. A callable takes the fraction of the
        fit that is done, in [0, 1), and returns a factor on `lr`.
    optimizer : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``, such as a class of torch.optim; or an
        optimizer of pyro.optim, whose learning rate then takes the place of `lr`.
    clip_norm : float, optional
        Upper bound on the norm of the gradient.
    objective : {"trace", "mean_field"} or pyro.infer.ELBO
        ``"trace"`` samples the KL divergence, ``"mean_field"`` computes it in closed form where
        one is known.
    n_particles : int
        Draws of the weights per step.
    estimator : {"reparam", "local", "flipout"}
        ``"reparam"``: one draw per batch. ``"local"`` and ``"flipout"``: one draw per row, which
        makes gradients less noisy; ``"local"`` draws the outputs of a layer in place of its
        weights, ``"flipout"`` multiplies one draw by random signs per row. Where a weight is used
        by other layers than linear ones, convolutions, embeddings and normalisations, each row is
        run alone with its own draw of all weights, which needs memory for their copies; modules
        whose rows affect each other are refused.
    kl_weight : {"uniform", "blundell", "auto"}, float, sequence of float, or callable
        ``"uniform"``: the whole KL divergence, spread evenly over the rows of an epoch, as in
        Bayes' rule. A number is a factor on it; a sequence has one for each restart.
        ``"blundell"``, or a callable of the number of a batch, 1 .. M, and M: other shares for the
        batches; see docs/explanation/minibatches.md. ``"auto"``: chains with weights from 0.05 to 1
        are first fitted side by side, as long as the fit itself, and the highest weight is chosen
        whose chain predicts the `validation` rows within one standard error of the best;
        ``settings["kl_search"]`` of each chain records what was tried.
    kl_warmup : float
        Fraction of the fit, in [0, 1), during which the weight of the KL divergence rises linearly
        to its full value. With the full weight from the start, wide networks often collapse to the
        prior before they have fitted the data. 0: no warm-up.
    guide : {"mean_field", "low_rank", "auto_normal"} or callable
        `MeanFieldGuide`, `LowRankGuide` with its default rank, Pyro's `AutoNormal` with the same
        initial values, or a guide, whose parameters are fitted in place: one of the first two, such
        as ``LowRankGuide(network, rank=10)``, or a custom Pyro guide (a `PyroModule`). With
        `restarts`, the further chains have new guides like the one given.
    start : Posterior, optional
        Initial posterior of a warm start, in place of the module's current weights. Its network
        must have the same sites, and its guide the same kind, chosen by name; its prior may differ.
        Parameters of the guide, point parameters and buffers start at its values, chain by chain;
        the optimizer and the schedule start from scratch. The posterior is not changed. Pass
        ``kl_warmup=0`` to stay near it.
    init : {"map"}, optional
        ``"map"``: fit the weights without noise first, from the module's current weights, for
        another tenth of `epochs`; the means of the guide start at the result, the scales and
        the latent sites of the likelihood at their usual values. The steps are those of the fit, by
        the same engine, schedule and data, but without KL divergence, validation and callbacks.
        Each restart has a mode of its own. It helps where a fit at the full KL weight would ignore
        its data: it gained 0.4 nats per row on 140 rows of a function of 6 inputs. With a
        `kl_weight` well below 1 it harms fits to noisy tables, whose weights stay where they have
        been fitted to the noise: it lost 0.2 to 0.5 nats per row at a weight of 0.3. Not with
        `start` or a custom guide. None: the means start at the module's current weights, trained or
        not.
    restarts : int
        Number of independent fits from different initial weights, which become the chains of one
        posterior: predictions average over them. The first starts at the module's current weights,
        restart r at those of `fresh_start` with the seed ``seed + r``, with the same result as a
        separate fit from there. If the module has been trained, only the first restart starts at
        the trained weights, unless the prior is `pyrobbb.priors.Around` them: then all do. They are
        fitted side by side where possible. With `start`, one per chain of that posterior.
    patience : int, optional
        Stop after this many epochs without a lower validation NLL, from the end of the warm-up on.
    callbacks : callable or sequence of callables
        Called at the end of each epoch with an `EpochEnd`: the progress of the fit, and on request
        the posterior so far. A callback that returns True ends the fit. Steps are then taken one
        epoch at a time, with the same result. Restarts that are not fitted side by side call them
        one after another.
    progress : bool
        Show a progress bar.
    seed : int, optional
        Makes the fit bitwise repeatable. None: drawn at random, and kept in the settings.
    checkpoint : path-like, optional
        Folder for checkpoints. If `fit` is called again with the same arguments after a crash, it
        continues from the last checkpoint, with a result that is bitwise equal to that of an
        uninterrupted fit; a completed fit is not repeated. Two checkpoints, ``checkpoint-1``
        and ``checkpoint-2``, are written alternately: if the last is damaged or could not be
        written, a warning is logged and the previous one is used. `Posterior.load` reads either.
        Needs one of pyrobbb's guides; a DataLoader must derive its order from torch's random state.
        A checkpoint of a fit with other arguments is refused. Compared are numbers and names; the
        initial weights, the data and the code of the module by their content; callables by their
        code and the values it uses, callbacks by their code and constants; files by samples, size
        and time; a DataLoader by its first batch and the batches of the epoch that is continued.
    every : int, optional
        Steps between checkpoints, rounded up to a whole engine call. None: about a minute.
    resume : bool
        True: continue from the checkpoint without comparing weights, data, code and callables,
        which the caller vouches for. Needed if one of them cannot be compared, such as a callable
        that holds an open file. Numbers and names are still compared.
    engine : {"auto", "svi", "fused", "compiled"}
        How steps are taken. ``"svi"``: by Pyro's SVI, the reference. ``"fused"``: without effect
        handling; see `FusedELBO`. ``"compiled"``: many fused steps in one compiled call.
        ``"auto"``: the one expected to finish first. A model, guide or objective that cannot be
        fused is fitted by ``"svi"``, and a module that cannot be compiled by ``"fused"``; the
        reason is logged.
    processes : {"same_noise", "own_noise", "alone"}
        How several processes work together, started by torchrun or joined in a process group of
        torch.distributed. Each is passed all of x and y, takes its share of every batch, and
        returns the same posterior. With ``"same_noise"`` all draw the same weights in a step: the
        result is that of one process, up to rounding. With ``"own_noise"`` each draws different
        weights, which divides that part of the gradient's variance by the number of processes.
        ``"alone"``: this process fits by itself. See docs/scaling.md.
    device : str or torch.device, optional
        Device of the fit: the copy of the network and all data are moved to it, and the posterior
        stays on it. None: that of the network.
    dtype : torch.float32 or torch.float64, optional
        Dtype of the copy of the network, the data and the posterior. None: that of the network.
    autocast : torch.bfloat16, optional
        Run the forward and backward pass of the module in bfloat16 where `torch.autocast` does.
        The parameters of the guide, the KL divergence, all densities and the optimizer stay in
        float32, and so do `validation` and the predictions of the posterior. Faster for wide
        layers, on hardware with bfloat16 arithmetic.
    cache_features : bool or path-like
        Run the frozen trunk of the network once over x, and fit the rest to its outputs: True keeps
        them in memory; the path of a folder writes them to a file there, which is read chunk by
        chunk, and used again by later fits with the same trunk and x. Files of x are run through
        the trunk chunk by chunk. The trunk has no parameters to fit, and its output is all that the
        rest is computed from; see `BayesianNetwork(trunk=...)` and docs/trunks.md.

    Returns
    -------
    Posterior

    Raises
    ------
    TypeError, ValueError
        If an argument or the data are invalid.
    NonFiniteLossError
        As soon as a loss or gradient is NaN or infinite; it names the step and the site or row.

    References
    ----------
    Blundell et al. (2015), "Weight Uncertainty in Neural Networks", ICML, PMLR 37.
    Kingma, Salimans and Welling (2015), "Variational dropout and the local reparameterization
    trick", for ``"local"``. Wen et al. (2018), "Flipout: efficient pseudo-independent weight
    perturbations on mini-batches", for ``"flipout"``.
    """
    config = FitConfig(**locals())  # the fields of FitConfig are the arguments of this function
    fit_all = fit_chains_on_features if config.cache_features else fit_chains
    return Posterior(fit_all(config, Posterior))
