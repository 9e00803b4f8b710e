"""Many fused steps in one compiled call.

One step (batch, gradient, KL divergence, Adam) is traced into a graph of torch operations, and a
loop over that graph is compiled, so that Python runs once per call and not once per step. torch's
compiled loop is a prototype: the first losses are compared with those of the fused engine. After
any failure the engine warns and takes fused steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from .._core.global_state import without_collection, without_messages_of, without_validation
from .._core.messages import first_line
from .._core.random_state import RandomState
from .._core.trees import Inputs, arrays_of, unflatten
from ..model.network import BayesianNetwork
from .base import Steps
from .compiled_loop import Loop, TensorKind, compile_loop, was_compiled
from .dropout_masks import DropoutMasks, GivenMasks
from .fused import FusedEngine, clip_gradients
from .optimizers import FlatAdam
from .step_graphs import Step

MIN_STEPS_PER_CALL, MAX_STEPS_PER_CALL = 4, 1024
MAX_NOISE_PER_CALL, MAX_ROWS_PER_CALL = 2**25, 2**21
"""Maximum number of noise elements (a quarter of a second of steps), which is also that of elements
of dropout masks, and of rows per call, except that `MIN_STEPS_PER_CALL` steps are always allowed.
The overhead of a call is a millisecond and two passes over the state."""
TOLERANCE, AUTOCAST_TOLERANCE = 1e-3, 3e-2
"""Relative difference from the fused engine's first loss above which a compiled step is rejected.
Under autocast, compiled code does not round to bfloat16 between the operations that it fuses."""


class CompiledEngine:
    """Engine that takes steps in a compiled loop.

    Parameters
    ----------
    fused : FusedEngine
        Holds the state, and takes the steps if compilation fails.
    batch_size : int
        Number of rows per step.
    ragged : bool
        Whether some batches have fewer rows than others.
    """

    name = "compiled"

    def __init__(self, fused: FusedEngine, *, batch_size: int, ragged: bool) -> None:
        self._fused, self._ragged = fused, ragged
        n_rows = batch_size * len(fused.chains)
        most = min(
            MAX_NOISE_PER_CALL // fused.noise_size, MAX_ROWS_PER_CALL // n_rows, MAX_STEPS_PER_CALL
        )
        self.max_steps_per_call = max(most, MIN_STEPS_PER_CALL)
        self._masks: DropoutMasks | None = None
        self._loops: dict[tuple[TensorKind, ...], Loop] = {}  # for the data of the steps
        self._carry: list[Tensor] | None = None
        self._failed = False
        if reason := obstacle_to_compiling(fused):
            self._fall_back(reason)

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps; write the nll and the KL divergence before each step to `losses`."""
        if self._failed:
            self._fused.run(steps, losses)
            return
        positions = self._fused.advance_noise(len(steps))
        random_state = RandomState.now()
        try:
            carry, parts = self._take(steps, positions)
        except Exception as error:  # raised by the compiler, the module or the prototype
            random_state.restore()
            self._fall_back(f"{type(error).__name__}: {first_line(error)}")
            self._fused.run_with_noise(steps, losses, positions)
            return
        learned = carry[: self._fused.n_guide]
        if not np.isfinite(parts).all() or not all(bool(t.isfinite().all()) for t in learned):
            random_state.restore()
            self.sync()  # to the state before these steps, so that the fused engine finds the cause
            self._fused.run_with_noise(steps, losses, positions)
            return
        self._carry = carry
        self._fused.n_steps += len(steps)
        self._adam.n_steps += len(steps)
        losses[:] = parts

    def sync(self) -> None:
        """Copy the current parameters to the networks and guides."""
        if self._carry is not None:
            for tensor, values in zip(self._tensors(), self._carry, strict=True):
                tensor.copy_(values)
            self._carry = None
        self._fused.sync()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the fused engine, which includes all steps after `sync`."""
        return self._fused.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`."""
        self._fused.load_state_dict(state)

    def is_cached(self, steps: Steps) -> bool:
        """Return whether a loop over steps like these has been compiled in this process.

        This is an estimate from shapes and the description of the model; no step is traced.

        Raises
        ------
        RuntimeError
            If it draws random numbers other than masks of dropout.
        """
        positions = self._fused.advance_noise(0)
        positions = positions.new_zeros((1, *positions.shape[1:]))
        by_step = self._by_step(steps[:1], positions, self._masks_of(steps).empty(1))
        inputs = [*self._tensors(), *(tensor[0] for tensor in by_step), *_data(steps)]
        return was_compiled(inputs, self.max_steps_per_call, self._model())

    @property
    def _is_autocast(self) -> bool:
        return self._fused.chains[0].network.autocast is not None

    @property
    def _adam(self) -> FlatAdam:
        assert isinstance(self._fused.optimizer, FlatAdam)
        return self._fused.optimizer

    def _tensors(self) -> list[Tensor]:
        return [*self._adam.tensors, *self._adam.first, *self._adam.second]

    def _model(self) -> str:
        network = self._fused.chains[0].network
        return f"{network.net} {network.prior} {network.likelihood} {network.autocast}"

    def _fall_back(self, reason: str) -> None:
        self.sync()
        self._failed = True
        self.name = self._fused.name
        warnings.warn(
            f"The steps could not be compiled and are taken by engine='fused': {reason}",
            RuntimeWarning,
            stacklevel=2,
        )

    def _take(self, steps: Steps, positions: Tensor) -> tuple[list[Tensor], np.ndarray]:
        """Take the steps from the current state; return the state after them, and the losses."""
        carry = self._carry or [tensor.clone() for tensor in self._tensors()]
        masks_of_dropout = self._masks_of(steps)
        n, parts = self.max_steps_per_call, []  # the masks may have lowered it
        with torch.no_grad(), without_validation():
            for first in range(0, len(steps), n):
                now = steps[first : first + n]
                masks = masks_of_dropout.draw(now.n_rows)
                by_step = self._by_step(now, positions[first : first + n], masks, first)
                data = _data(now)
                kinds = tuple(map(TensorKind.of, data))
                if kinds not in self._loops:
                    self.sync()  # the losses are compared with those of the fused engine
                    with _buffers_kept(chain.network for chain in self._fused.chains):
                        loop = self._compile(carry, by_step, now, positions[first:], masks)
                    self._loops[kinds] = loop
                carry, results = self._loops[kinds](carry, by_step, data)
                parts.append(results)
        losses = torch.cat(parts).double().cpu().numpy().reshape((len(steps), 2, -1))
        losses[:, 0] /= steps.step_weight[:, None]
        return list(carry), losses

    def _compile(
        self,
        carry: list[Tensor],
        by_step: list[Tensor],
        steps: Steps,
        positions: Tensor,
        masks: list[Tensor],
    ) -> Loop:
        """Compile the loop, and check it against the fused engine."""
        step = self._step_function(
            steps.x,
            has_rows=steps.rows is not None,
            is_weighted=steps.row_weight is not None,
            n_masks=len(masks),
        )
        data = _data(steps)
        with without_collection(), without_messages_of("torch._dynamo", "torch._inductor"):
            loop = compile_loop(step, carry, by_step, data, self.max_steps_per_call, self._model())
            _, parts = loop(carry, [tensor[:1] for tensor in by_step], data)
        self._check_losses(steps, positions, masks, parts[0])
        if self._ragged:
            self._check_padding(step, carry, steps, positions)
        return loop

    def _masks_of(self, steps: Steps) -> DropoutMasks:
        """Return the masks of dropout, after a run of a step that shows which are drawn."""
        if self._masks is None:
            first = steps[:1]
            positions = self._fused.advance_noise(0)
            noise = self._fused.noise_at(positions.new_zeros(positions.shape[1:]))

            def run_step(n_rows: int) -> None:
                of_rows = replace(first, n_rows=np.array([n_rows]))
                self._fused.step_at(of_rows, 0, noise)

            n_rows = int(steps.n_rows[0]) if steps.rows is None else steps.rows.shape[-1]
            networks = [chain.network for chain in self._fused.chains]
            with torch.no_grad(), without_validation(), _buffers_kept(networks):
                self._masks = DropoutMasks(run_step, n_rows)
            most = max(MAX_NOISE_PER_CALL // max(self._masks.size, 1), MIN_STEPS_PER_CALL)
            self.max_steps_per_call = min(self.max_steps_per_call, most)
        return self._masks

    def _by_step(
        self, steps: Steps, positions: Tensor, masks: Sequence[Tensor], n_ahead: int = 0
    ) -> list[Tensor]:
        """Return the inputs of each step: noise position, weights, Adam's factors, masks, rows.

        `n_ahead` is the number of steps between the state of the optimizer and the first step.
        """
        adam = self._adam
        like = adam.tensors[0]
        count = adam.n_steps + n_ahead + 1 + np.arange(len(steps))
        factors = [
            steps.data_weight,
            steps.lr / (1 - adam.beta1**count),
            (1 - adam.beta2**count) ** -0.5,
            1 - steps.lr * adam.weight_decay,
        ]
        by_step = [
            positions,
            torch.as_tensor(np.stack(factors, 1)).to(like),
            torch.as_tensor(steps.kl_factor).to(like),
            *masks,
        ]
        if steps.rows is not None:
            by_step.append(steps.rows)
            if self._ragged:
                counts = np.arange(steps.rows.shape[-1]) < steps.n_rows[:, None]
                weights = torch.as_tensor(counts).to(like)
                if steps.rows.dim() == 3:
                    weights = weights[:, None].expand(steps.rows.shape)
                by_step.append(weights.contiguous())
        return by_step

    def _step_function(
        self, example: Inputs, *, has_rows: bool, is_weighted: bool, n_masks: int
    ) -> Step:
        """Return one step as a function of tensors: the state, the inputs of the step, the data."""
        fused = self._fused
        loss, adam, clip_norm = fused.loss, self._adam, fused.clip_norm
        n_chains = len(fused.chains)
        lead = int(n_chains > 1)
        n = len(adam.tensors)
        ragged = has_rows and self._ragged
        n_arrays = len(arrays_of(example))

        def step(*tensors: Tensor) -> tuple[Tensor, ...]:
            values, first, second = tensors[:n], tensors[n : 2 * n], tensors[2 * n : 3 * n]
            position, factors, kl_weight, *rest = tensors[3 * n :]
            masks, rest = rest[:n_masks], rest[n_masks:]
            rows, data = rest[: has_rows + ragged], rest[has_rows + ragged :]
            data_weight, rate, root_correction, decay = factors.unbind()
            if has_rows:
                data = [tensor[rows[0]] for tensor in data]
            elif lead:
                data = [tensor.expand((n_chains, *tensor.shape)) for tensor in data]
            x = unflatten(data[:n_arrays], example)
            y, *weights = data[n_arrays:]
            row_weight = weights[0] if is_weighted else None
            if ragged:
                row_weight = rows[1] if row_weight is None else rows[1] * row_weight
            noise = fused.noise_at(position, functional=True)
            with GivenMasks(masks):
                parts = loss(
                    values[: fused.n_guide],
                    values[fused.n_guide :],
                    noise,
                    x,
                    y,
                    data_weight=data_weight,
                    kl_weight=kl_weight,
                    row_weight=row_weight,
                )
            gradients = [*parts.d_guide, *parts.d_points]
            if clip_norm is not None:
                gradients = clip_gradients(gradients, clip_norm, lead)
            updated: list[list[Tensor]] = [[], [], []]
            for value, m, v, gradient in zip(values, first, second, gradients, strict=True):
                if adam.weight_decay and adam.decoupled:
                    value = value * decay
                elif adam.weight_decay:
                    gradient = gradient + adam.weight_decay * value
                m = m + (1 - adam.beta1) * (gradient - m)
                v = adam.beta2 * v + (1 - adam.beta2) * gradient * gradient
                value = value - rate * m / (v.sqrt() * root_correction + adam.eps)
                for column, tensor in zip(updated, (value, m, v), strict=True):
                    column.append(tensor)
            return (*updated[0], *updated[1], *updated[2], torch.stack([parts.nll, parts.kl]))

        return step

    def _fused_losses(self, steps: Steps, positions: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return the nll and the KL divergence of the first step, by the fused engine."""
        of_step = self._masks_of(steps).of_step(masks, int(steps.n_rows[0]))
        with GivenMasks(of_step):
            step = self._fused.step_at(steps, 0, self._fused.noise_at(positions[:1])[0])
        return torch.stack([step.nll, step.kl])

    def _check_losses(
        self, steps: Steps, positions: Tensor, masks: Sequence[Tensor], parts: Tensor
    ) -> None:
        """Raise if the compiled losses of a step are not those of the fused engine."""
        expected = self._fused_losses(steps, positions, masks)
        tolerance = AUTOCAST_TOLERANCE if self._is_autocast else TOLERANCE
        if not torch.allclose(parts, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise RuntimeError(
                f"the compiled losses {parts.flatten().tolist()} differ from those of the fused "
                f"engine, {expected.flatten().tolist()}"
            )

    def _check_padding(
        self, step: Step, carry: Sequence[Tensor], steps: Steps, positions: Tensor
    ) -> None:
        """Raise if the padding of a smaller batch changes the outputs of its other rows."""
        fewer = replace(steps[:1], n_rows=(steps.n_rows[:1] + 1) // 2)
        random_state = RandomState.now()
        masks = self._masks_of(steps).draw(fewer.n_rows)
        random_state.restore()
        by_step = [tensor[0] for tensor in self._by_step(fewer, positions[:1], masks)]
        parts = step(*carry, *by_step, *_data(steps))[-1]
        expected = self._fused_losses(fewer, positions, masks)
        # Without autocast the two sums differ only in their rounding.
        tolerance = AUTOCAST_TOLERANCE if self._is_autocast else torch.finfo(parts.dtype).eps ** 0.5
        if not torch.allclose(parts[0], expected[0], rtol=tolerance, atol=tolerance):
            raise RuntimeError(
                "the rows of a batch depend on each other, and the last batch is smaller"
            )


def obstacle_to_compiling(fused: FusedEngine) -> str | None:
    """Return why the steps cannot be compiled, as far as is known before trying, or None."""
    if not isinstance(fused.optimizer, FlatAdam):
        return "only fits by Adam or AdamW are compiled"
    if fused.loss.estimator != "reparam":
        return f"estimator={fused.loss.estimator!r} draws random numbers in the module"
    for module in fused.chains[0].network.net.modules():
        if isinstance(module, nn.RNNBase):
            return f"the module has recurrent layers ({type(module).__name__})"
    return None


@contextmanager
def _buffers_kept(networks: Iterable[BayesianNetwork]) -> Iterator[None]:
    """Restore the buffers that tracing changes; raise if the module assigns one.

    A compiled step would not update it.
    """
    modules = [module for network in networks for module in network.modules()]
    before = [
        (module._buffers, name, buffer, buffer.clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
        if any(buffers[name] is not buffer for buffers, name, buffer, _ in before):
            raise RuntimeError("the module updates its buffers")
    finally:
        for buffers, name, buffer, values in before:
            buffers[name] = buffer
            buffer.copy_(values)


def _data(steps: Steps) -> list[Tensor]:
    data = [*arrays_of(steps.x), steps.y]
    return data if steps.row_weight is None else [*data, steps.row_weight]
