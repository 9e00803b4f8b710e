"""The training loop: steps, validation, callbacks and checkpoints around an engine."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._core.display import count_of
from .._core.progress import EpochBar, epoch_bar
from .._core.random_state import IsolatedState, seeded
from ..engines.auto import limit_threads
from ..engines.base import Steps
from ..engines.optimizer_state import NotStorableError
from ..fitted import FittedChain
from ..model.functional import evaluating
from .callbacks import EpochEnd
from .config import FitConfig
from .run import ChainStart, Run, ready_to_predict, start
from .step_plan import interleave, rechunk

logger = logging.getLogger(__name__)

MakeResult = Callable[[tuple[FittedChain, ...]], Any]


def run_chains(
    config: FitConfig,
    starts: Sequence[ChainStart],
    folder: Path | None,
    make_result: MakeResult,
    *,
    is_interrupted: bool = False,
) -> tuple[FittedChain, ...]:
    """Fit a chain from each start, side by side, with the same results as separate fits.

    Parameters
    ----------
    config : FitConfig
    starts : sequence of ChainStart
    folder : Path, optional
        Of the checkpoints.
    make_result : callable
        Converts a tuple of chains to the return value of `EpochEnd.posterior`.
    is_interrupted : bool
        Whether Ctrl-C has ended an earlier stage of the fit: then no step is taken.

    Returns
    -------
    tuple of FittedChain
    """
    isolated = IsolatedState(starts[0].seed)
    with isolated.active():
        run = start(config, starts, folder)
    run.state.is_interrupted = is_interrupted
    if not is_interrupted:
        train(run, isolated, make_result)
    for network in run.networks:
        ready_to_predict(network)
    chains = run.chains()
    histories = [chain.history for chain in chains]
    n_steps = len(histories[0].nelbo)  # the same for all chains
    logger.info(
        "Fitted %d steps in %.3g s by engine=%r: the negative ELBO of the last epoch is %.5g.",
        n_steps,
        run.state.seconds,
        run.state.engine.name,
        np.mean([own.per_epoch().nelbo[-1] for own in histories]) if n_steps else math.nan,
    )
    return chains


def train(run: Run, isolated: IsolatedState, make_result: MakeResult) -> None:
    """Take the remaining steps of a fit.

    Steps are taken up to the next pause: the end of the epoch if validation or callbacks read the
    parameters there, otherwise the end of the fit. Checkpoints are written between engine calls.
    The global state is that of the fit in each engine call only, so that other threads wait for no
    longer than that.
    """
    config, state = run.config, run.state
    n_parameters = len(run.networks) * sum(tensor.numel() for tensor in run.parameters)
    log_start(run)
    is_shown = config.progress and config.team.is_rank_zero
    try:
        with (
            epoch_bar(run.epochs, is_shown=is_shown) as bar,
            limit_threads(n_parameters),
        ):
            bar.update(state.n_steps // run.data.n_batches)
            while state.n_steps < run.plan.n_steps and not state.is_over:
                steps = take_steps(run, isolated, bar)
                if config.pauses_at_epochs:
                    state.is_over = end_epoch(run, steps, make_result)
                write_checkpoint_if_due(run, isolated)
    except KeyboardInterrupt:
        if config.team.size > 1:
            raise
        state.is_interrupted = True
        logger.warning("Interrupted after %d steps: the fit ends here.", state.n_steps_taken)
        state.engine.sync()
    else:
        if run.checkpoints is not None and not state.is_over:
            state.is_over = True
            write_checkpoint(run, isolated)
    if state.validation is not None:
        state.validation.restore(run.parameters)


def take_steps(run: Run, isolated: IsolatedState, bar: EpochBar) -> Steps:
    """Take steps up to the next pause, and return the last ones."""
    config, state, data = run.config, run.state, run.data
    first = state.n_steps // data.n_batches
    last = first + 1 if config.pauses_at_epochs else run.epochs
    stream = itertools.chain.from_iterable(
        run.plan.steps(epochs, state.n_steps, state.n_rows.append)
        for epochs in interleave(range(first, last), state.engine, data.n_batches)
    )
    for steps in rechunk(stream, state.engine):
        state.losses.append(np.full((len(steps), 2, len(run.networks)), np.nan))
        with isolated.active():
            state.engine.run(steps, state.losses[-1])
        state.n_steps += len(steps)
        show_progress(bar, state.n_steps // data.n_batches, state.losses[-1][-1])
        if state.n_steps < last * data.n_batches:
            write_checkpoint_if_due(run, isolated)
    state.engine.sync()
    return steps


def end_epoch(run: Run, steps: Steps, make_result: MakeResult) -> bool:
    """Score the validation data and call the callbacks; return whether the fit is over."""
    config, validation = run.config, run.state.validation
    is_over = False
    if validation is not None:
        validation.score(run.guides[0], run.parameters)
        is_over = validation.is_exhausted(config.patience)
    if config.callback_list and config.team.is_rank_zero:
        is_over = call_callbacks(run, steps, make_result) or is_over
    return config.team.any(is_over)


def call_callbacks(run: Run, steps: Steps, make_result: MakeResult) -> bool:
    """Call the callbacks at the end of an epoch; return whether one of them ends the fit."""
    state, validation = run.state, run.state.validation
    nll, kl = state.mean_losses_of_epoch()
    end = EpochEnd(
        epoch=state.n_steps // run.data.n_batches,
        n_epochs=run.epochs,
        n_steps=state.n_steps,
        nelbo=nll + kl,
        nll=nll,
        kl=kl,
        kl_weight=float(np.mean(steps.kl_weight[-1])),
        lr=float(steps.lr[-1]),
        validation_nll=None if validation is None else validation.nll[-1],
        seconds=state.seconds,
        _snapshot=lambda: make_result(run.snapshot()),
    )
    with seeded(run.seeds[0] + end.epoch):  # draws of the callbacks do not change the fit
        answers = [callback(end) for callback in run.config.callback_list]
    return any(answer is True for answer in answers)


def write_checkpoint_if_due(run: Run, isolated: IsolatedState) -> None:
    """Write a checkpoint if one is due or the fit is over."""
    if run.checkpoints is None:
        return
    is_due = run.checkpoints.is_due(run.state.n_steps)
    if run.state.is_over or run.config.team.broadcast(is_due):
        write_checkpoint(run, isolated)


def write_checkpoint(run: Run, isolated: IsolatedState) -> None:
    """Write a checkpoint; rank 0 writes, all processes contribute."""
    assert run.checkpoints is not None
    run.state.engine.sync()
    try:
        with isolated.active():  # its random state is a part of the checkpoint
            state = run.state.state_dict()
    except NotStorableError as error:  # the optimiser has changed its state during the fit
        logger.warning("There is no checkpoint at step %d: %s", run.state.n_steps, error)
        run.checkpoints.postpone(run.state.n_steps)
        return
    if not run.config.team.is_rank_zero:
        return
    with contextlib.ExitStack() as modes:
        for network in run.networks:
            modes.enter_context(evaluating(network))
        run.checkpoints.write(state, run.chains())


def log_start(run: Run) -> None:
    """Log the size of the fit, its engine and its device."""
    weights = [parameter for _, parameter in run.networks[0].bayesian_parameters()]
    logger.info(
        "Fitting %d weights to %d rows by engine=%r: %d steps in %d epochs of %s, on %s in %s.",
        sum(parameter.numel() for parameter in weights),
        run.data.n_data,
        run.state.engine.name,
        run.plan.n_steps,
        run.epochs,
        count_of(len(run.networks), "chain"),
        weights[0].device,
        str(weights[0].dtype).removeprefix("torch."),
    )


def show_progress(bar: EpochBar, n_epochs: int, losses: np.ndarray) -> None:
    """Update the progress bar at the end of an epoch."""
    if n_epochs > bar.n:
        nll, kl = losses.mean(-1)
        bar.update(n_epochs - bar.n, f"nelbo={nll + kl:.4g}, nll={nll:.4g}, kl={kl:.4g}")
