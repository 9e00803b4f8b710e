"""A fit on its way: batches, schedule, stopping, checkpoints and progress around an engine."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import math
import numbers
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .._core.random_state import RandomState, rank_seed, reseed, seeded
from .._core.state_dicts import with_prefix
from ..elbo.fused_elbo import CannotFuseError, FusedELBO
from ..elbo.objectives import kl_weights, traced
from ..engines.auto import AutoEngine, limit_threads
from ..engines.base import Engine, Steps, SVIEngine
from ..engines.compiled import CompiledEngine
from ..engines.fused import Chain, FusedEngine
from ..fitted.history import History
from ..model.guides import MeanFieldGuide, auto_normal
from ..model.network import BayesianNetwork, evaluating
from ..posterior.posterior import Posterior
from .batches import AnyBatches, LoaderBatches, StreamBatches, crc32, open_batches
from .callbacks import EpochEnd
from .checkpoints import Checkpoints, Progress, difference
from .config import Plan, Start
from .early_stopping import Validation
from .schedules import factor_of
from .warm_start import take_up

logger = logging.getLogger(__name__)

DEFAULT_STEPS, DEFAULT_EPOCHS = 10_000, 20


def run(
    plan: Plan, starts: Sequence[Start], checkpoint: Path | None
) -> tuple[list[Posterior], bool]:
    """Fit from each of some starts, side by side, each as it would come out alone.

    Gives them, and whether Ctrl-C has ended the fit.
    """
    with seeded(starts[0].seed), pyro.get_param_store().scope(), poutine.block():
        fit = Run(plan, starts, checkpoint)
        fit.take_up()
        fit.go()
    for network in fit.networks:
        as_result(network)
    posteriors = fit.posteriors()
    history = posteriors[0].history
    logger.info(
        "Fitted %d steps in %.3g s by engine=%r: the negative ELBO is %.5g in the last epoch.",
        len(history.nelbo),
        fit.seconds,
        fit.engine.name,
        history.per_epoch().nelbo[-1] if len(history.nelbo) else math.nan,
    )
    return posteriors, fit.is_interrupted


class Run:
    """One fit, or several side by side: where it is, and how it goes on."""

    def __init__(self, plan: Plan, starts: Sequence[Start], checkpoint: Path | None) -> None:
        self.plan, self._starts = plan, starts
        self.networks = [plan.placement.copy(start.network) for start in starts]
        self.seeds = [start.seed for start in starts]
        for network in self.networks:
            if not network.training:  # in training mode, the modes of its parts are the user's
                network.train()
        network = self.networks[0]
        self.data = open_batches(
            network, plan.x, plan.y, plan.n_data, plan.batch_size, plan.sample_weight, plan.team
        )
        self.epochs = plan.epochs or max(
            DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / self.data.n_batches)
        )
        self.watch = None
        if plan.validation is not None:
            # While the KL divergence does not count in full, what scores best is no posterior.
            unripe = math.ceil(plan.kl_warmup * self.epochs)
            self.watch = Validation(network, plan.validation, self.seeds[0], unripe)
        self.guides = [make_guide(plan.guide, own, self.data) for own in self.networks]
        for start, own, guide in zip(starts, self.networks, self.guides, strict=True):
            if start.earlier is not None:
                take_up(start.earlier, own, guide)
        self.learnt = learnt_by(network, self.guides[0])
        self.n_done = 0
        self.is_over = self.is_interrupted = False
        self._checkpoints = None
        if checkpoint is not None:
            self._checkpoints = Checkpoints(checkpoint, plan.every)
        self._seconds = 0.0  # before this process began
        self._began = time.perf_counter()
        self._n_rows: list[np.ndarray] = []  # of each step handed out
        self._losses: list[np.ndarray] = []
        self._factor = factor_of(plan.schedule)
        self._shares = kl_weights(plan.kl_weight, self.data.n_batches)
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """What takes the steps; made when all is where it starts."""
        if self._engine is None:
            for network, guide in zip(self.networks, self.guides, strict=True):
                shared = learnt_by(network, guide)
                self.plan.team.broadcast_tensors([*shared, *network.buffers()])
            self._engine = make_engine(
                self.plan,
                self.networks,
                self.guides,
                self.seeds,
                self.learnt,
                self.data,
                self.epochs,
            )
            # What is drawn here is the weights in one engine, and in the others noise by row and
            # dropout: for rows that no other process has.
            if self._engine.name != "svi" or self.plan.processes == "own_noise":
                reseed(rank_seed(self.seeds[0], self.plan.team.rank))
        return self._engine

    @property
    def seconds(self) -> float:
        """How long the fit has taken, what came before a checkpoint included."""
        return self._seconds + time.perf_counter() - self._began

    def _tell_start(self) -> None:
        weights = [parameter for _, parameter in self.networks[0].bayesian_parameters()]
        logger.info(
            "Fitting %d weights to %d rows by engine=%r: %d steps in %d epochs, %d fit(s) side by "
            "side, on %s in %s.",
            sum(parameter.numel() for parameter in weights),
            self.data.n_data,
            self.engine.name,
            self.epochs * self.data.n_batches,
            self.epochs,
            len(self.networks),
            weights[0].device,
            str(weights[0].dtype).removeprefix("torch."),
        )

    def go(self) -> None:
        """Take the steps that are left."""
        n_steps = self.epochs * self.data.n_batches
        n_learnt = len(self.networks) * sum(tensor.numel() for tensor in self.learnt)
        engine = self.engine
        self._tell_start()
        is_shown = self.plan.progress and self.plan.team.is_rank_zero
        bar = tqdm(total=self.epochs, desc="fit", unit="epoch", disable=not is_shown)
        try:
            with bar, limit_threads(n_learnt):
                bar.update(self.n_done // self.data.n_batches)
                while self.n_done < n_steps and not self.is_over:
                    self._go_on(bar)
        except KeyboardInterrupt:
            if self.plan.team.size > 1:
                raise
            self.is_interrupted = True
            n_taken = sum(int((~np.isnan(piece[:, 0, 0])).sum()) for piece in self._losses)
            logger.warning("Interrupted after %d steps: giving what is fitted so far.", n_taken)
            engine.sync()
        else:
            if self._checkpoints is not None and not self.is_over:
                self.is_over = True
                self._write()
        if self.watch is not None:
            self.watch.restore(self.learnt)

    def _go_on(self, bar: Any) -> None:
        """Take steps up to where something looks at the parameters, or to the end."""
        engine, data = self.engine, self.data
        first = self.n_done // data.n_batches
        last = first + 1 if self.plan.stops_at_epochs else self.epochs
        stream = itertools.chain.from_iterable(
            self._steps_of(some) for some in in_turn(range(first, last), engine, data)
        )
        for steps in in_pieces(stream, engine):
            self._losses.append(np.full((len(steps), 2, len(self.networks)), np.nan))
            engine.run(steps, self._losses[-1])
            self.n_done += len(steps)
            _show(bar, self.n_done // data.n_batches, self._losses[-1][-1])
            if self.n_done < last * data.n_batches:
                self._write_if_due()
        engine.sync()
        if self.plan.stops_at_epochs:
            is_over = self.watch is not None and self.watch.is_over(
                self.guides[0], self.learnt, self.plan.patience
            )
            if self.plan.callbacks:
                is_over = self._tell(steps) or is_over
            self.is_over = self.plan.team.any(is_over)
        self._write_if_due()

    def _steps_of(self, which: range) -> Iterator[Steps]:
        """Give the steps of some epochs that are still to be taken."""
        plan, data = self.plan, self.data
        n_before = self.n_done
        for batches in data.epochs(which, self._generators):
            n_missed = max(0, n_before - int(batches.number[0]))
            if n_missed >= len(batches.number):
                continue
            batches = batches.after(n_missed)
            n_rows, number = batches.n_rows, batches.number
            done = number / (self.epochs * data.n_batches)
            warm = np.minimum(1.0, done / plan.kl_warmup) if plan.kl_warmup else 1.0
            # The loss below is n_data / n_rows times the paper's F_i = pi_i KL + nll_i.
            # Processes share a batch's part of the KL divergence by the rows that they have of it.
            share = self._shares[number % data.n_batches] * n_rows / batches.n_rows_in_all
            if plan.kl_weight == "uniform" or isinstance(plan.kl_weight, numbers.Real):
                # It goes by rows, so that a ragged batch has its part.
                share = self._shares.sum() * n_rows / data.n_data
            self._n_rows.append(batches.n_rows_in_all)
            yield Steps(
                batches.x,
                batches.y,
                batches.rows,
                n_rows,
                n_data=data.n_data,
                kl_weight=warm * share * data.n_data / np.maximum(n_rows, 1),
                step_weight=n_rows / data.batch_size,
                lr=plan.lr * np.array([self._factor(part) for part in done.tolist()]),
                row_weight=batches.row_weight,
            )

    def _tell(self, steps: Steps) -> bool:
        """Call the callbacks at the end of an epoch; say whether one ends the fit."""
        if not self.plan.team.is_rank_zero:
            return False
        n_batches = self.data.n_batches
        nll, kl = np.concatenate(self._losses[-n_batches:])[-n_batches:].mean((0, 2))
        end = EpochEnd(
            epoch=self.n_done // n_batches,
            n_epochs=self.epochs,
            n_steps=self.n_done,
            nelbo=float(nll + kl),
            nll=float(nll),
            kl=float(kl),
            kl_weight=float(steps.kl_weight[-1]),
            lr=float(steps.lr[-1]),
            validation_nll=None if self.watch is None else self.watch.nll[-1],
            seconds=self.seconds,
            _snapshot=self._snapshot,
        )
        with seeded(self.seeds[0] + end.epoch):  # what they draw does not change the fit
            answers = [callback(end) for callback in self.plan.callbacks]
        return any(answer is True for answer in answers)

    def _snapshot(self) -> Posterior:
        networks, guides = copy.deepcopy((self.networks, self.guides))
        return as_one(self.posteriors([as_result(network) for network in networks], guides))

    def posteriors(
        self, networks: Sequence[BayesianNetwork] | None = None, guides: Sequence[Any] | None = None
    ) -> list[Posterior]:
        """Give the fits as they now are; by default with the networks and guides themselves."""
        n_chains = len(self.networks)
        losses = np.concatenate([np.empty((0, 2, n_chains)), *self._losses])
        losses = losses[~np.isnan(losses[:, 0, 0])]
        n_rows = np.concatenate([np.empty(0, int), *self._n_rows])[: len(losses)]
        epoch = np.arange(len(losses)) // self.data.n_batches
        validation_nll = np.array([] if self.watch is None else self.watch.nll)
        settings = self.plan.settings(self.data, self.epochs)
        posteriors = []
        own = zip(networks or self.networks, guides or self.guides, self.seeds, strict=True)
        for chain, (network, guide, seed) in enumerate(own):
            nll, kl = losses[:, :, chain].T
            history = History(nll + kl, nll, kl, epoch, n_rows, validation_nll)
            its_settings = {"engine": self.engine.name, **settings, "seed": seed}
            example = self.data.example[0]
            posteriors.append(Posterior(network, guide, history, example, its_settings))
        return posteriors

    # Checkpoints

    def _outline(self) -> dict[str, Any]:
        outline = {**self.plan.outline(self.data, self.epochs), "seed": self.seeds[0]}
        return outline | ({"start": self._starts_from} if self._starts_from else {})

    @cached_property
    def _starts_from(self) -> str:
        """What tells the posteriors that the fit starts from from others."""
        earlier = [start.earlier for start in self._starts if start.earlier is not None]
        return "-".join(crc32(*learnt_by(own.network, own.guide)) for own in earlier)

    def _write_if_due(self) -> None:
        if self._checkpoints is None:
            return
        if self.is_over or self.plan.team.broadcast(self._checkpoints.is_due(self.n_done)):
            self._write()

    def _write(self) -> None:
        assert self._checkpoints is not None
        self.engine.sync()
        tensors = self._state()
        if not self.plan.team.is_rank_zero:
            return
        with contextlib.ExitStack() as modes:
            for network in self.networks:
                modes.enter_context(evaluating(network))
            progress = Progress(
                outline=self._outline(),
                n_done=self.n_done,
                is_over=self.is_over,
                seconds=self.seconds,
                tensors=tensors,
                chains=self.posteriors(),
            )
            self._checkpoints.write(progress)

    def _state(self) -> dict[str, Tensor]:
        """Give what the next step depends on, beyond networks and guides."""
        state = self.engine.memory()
        best = {} if self.watch is None else self.watch.state()
        own = {name: tensor for name, tensor in state.items() if name.startswith("noise.")}
        own |= {f"random.{name}": t for name, t in RandomState.now().tensors().items()}
        by_rank = self.plan.team.gather(own)
        return {
            **{f"engine.{name}": tensor for name, tensor in state.items() if name not in own},
            **{f"best.{name}": tensor for name, tensor in best.items()},
            **{f"rank-{r}.{n}": t for r, theirs in enumerate(by_rank) for n, t in theirs.items()},
        }

    def take_up(self) -> None:
        """Go on from the last checkpoint, if there is one: the first process reads for all."""
        team, progress = self.plan.team, None
        if team.size > 1:
            self._check_agreed(team.gather(self._outline()))
        if self._checkpoints is None:
            return
        if team.is_rank_zero:
            like = copy.deepcopy(self.networks[0])
            progress = self._checkpoints.latest(like, self._outline())
        held = None
        if progress is not None:
            for chain, network, guide in zip(
                progress.chains, self.networks, self.guides, strict=True
            ):
                take_up(chain, network, guide)
            histories = [chain.history for chain in progress.chains]
            held = progress.n_done, progress.is_over, progress.seconds, progress.tensors, histories
        held = team.broadcast(held)
        if held is None:
            return
        self.n_done, self.is_over, self._seconds, tensors, histories = held
        self._losses = [np.stack([np.stack([h.nll, h.kl], 1) for h in histories], -1)]
        self._n_rows = [histories[0].n_rows]
        own = with_prefix(tensors, f"rank-{team.rank}.")
        self.engine.take_up(with_prefix(tensors, "engine.") | own)
        if self.watch is not None:
            self.watch.take_up(histories[0].validation_nll.tolist(), with_prefix(tensors, "best."))
        RandomState.of(with_prefix(own, "random.")).restore()
        what = "is over" if self.is_over else "goes on"
        logger.info("The fit %s: its checkpoint is of step %d.", what, self.n_done)

    def _check_agreed(self, outlines: Sequence[dict[str, Any]]) -> None:
        """Raise unless all processes have been asked for the same."""
        first = outlines[0]
        for rank, theirs in enumerate(outlines):
            if odd := difference(first, theirs):
                raise ValueError(
                    "All processes must call fit with the same arguments and the same rows: "
                    f"{odd!r} is {first.get(odd)!r} in process 0 and {theirs.get(odd)!r} in "
                    f"process {rank}. For fits of their own: processes='alone'."
                )


def as_result(network: BayesianNetwork) -> BayesianNetwork:
    """Make a network ready to predict: in evaluation mode, in full precision."""
    network.autocast = None
    return network.eval()


def as_one(chains: Sequence[Posterior]) -> Posterior:
    """Give one posterior of one or several fits."""
    return chains[0] if len(chains) == 1 else Posterior.of_chains(chains)


def learnt_by(network: BayesianNetwork, guide: Any) -> list[nn.Parameter]:
    """Give all that is learnt, in a fixed order: point parameters, then those of the guide."""
    learnt = [parameter for _, parameter in network.point_parameters()]
    learnt += guide.parameters() if isinstance(guide, nn.Module) else []
    if not learnt:
        raise ValueError(
            "`guide` has no parameters to learn: make it a PyroModule that owns them. Those of "
            "pyro.param live in Pyro's global store, which fit leaves alone."
        )
    return learnt


def make_engine(
    plan: Plan,
    networks: list[BayesianNetwork],
    guides: list[Any],
    seeds: list[int],
    learnt: list[nn.Parameter],
    data: AnyBatches,
    epochs: int,
) -> Engine:
    """Make the engine that a plan asks for, or the one that the model allows."""
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
                team=plan.team,
                noise="own" if plan.processes == "own_noise" else "same",
            )
        except CannotFuseError as error:
            if getattr(plan.elbo, "estimator", "reparam") != "reparam":
                raise ValueError(f"`estimator` {plan.elbo.estimator!r}: {error}.") from error
            level = logging.INFO if plan.engine == "auto" else logging.WARNING
            logger.log(level, "The steps are taken by engine='svi': %s.", error)
        else:
            if plan.engine == "fused":
                return fused
            one_by_one = None
            if isinstance(data, LoaderBatches):
                one_by_one = "A DataLoader gives its batches one by one"
            elif plan.team.size > 1:
                one_by_one = "Several processes add up their gradients at each step"
            if one_by_one is not None:
                if plan.engine == "compiled":
                    logger.warning("%s: the steps are taken by engine='fused'.", one_by_one)
                return fused
            ragged = data.n_data % data.batch_size > 0
            n_steps = epochs * data.n_batches
            if plan.engine == "compiled":
                return CompiledEngine(fused, batch_size=data.batch_size, ragged=ragged)
            n_in_a_row = n_steps
            if isinstance(data, StreamBatches):
                n_in_a_row = data.n_in_a_row
            elif plan.stops_at_epochs:
                n_in_a_row = data.n_batches
            return AutoEngine(
                fused, n_steps, n_in_a_row=n_in_a_row, batch_size=data.batch_size, ragged=ragged
            )
    return SVIEngine(
        networks[0],
        guides[0],
        elbo=traced(plan.elbo),
        optimizer=plan.optimizer,
        parameters=learnt,
        clip_norm=plan.clip_norm,
        team=plan.team,
    )


def in_turn(epochs: range, engine: Engine, data: AnyBatches) -> Iterator[range]:
    """Cut epochs to as many as an engine takes at once, and to one if it takes fewer steps."""
    first = epochs.start
    while first < epochs.stop:
        last = min(first + max(engine.at_once // data.n_batches, 1), epochs.stop)
        yield range(first, last)
        first = last


def in_pieces(stream: Iterable[Steps], engine: Engine) -> Iterator[Steps]:
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


def make_guide(
    guide: str | Callable[..., Any], network: BayesianNetwork, data: AnyBatches
) -> Callable[..., Any]:
    """Make the guide of a name; or give one of the user's own, made ready."""
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
