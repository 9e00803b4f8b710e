"""Many fused steps in one compiled call.

One step (batch, gradient, KL divergence, Adam) is traced into a graph of torch operations, and a
loop over that graph is compiled: Python is left once for many steps, of whatever number. The loop
is a prototype of torch's: what it gives is compared with the fused engine at the first call, and
any failure ends in a warning and fused steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FunctionType
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.fx import GraphModule

from .base import Steps
from .fused import FusedEngine, clipped
from .optimizers import FlatAdam

MOST_AT_ONCE, LEAST_AT_ONCE = 1024, 4
NUMBERS_AT_ONCE, ROWS_AT_ONCE = 2**25, 2**21
"""How many steps a call takes at most, and between these how many numbers of noise (a quarter of a
second of steps) and rows. A call costs two passes over the state and a millisecond besides."""
TOLERANCE, TOLERANCE_IN_AUTOCAST = 1e-3, 3e-2
"""Relative difference from the fused engine's first loss above which a compiled step is refused.
Compiled code leaves out roundings to bfloat16 between operations that it joins."""

OPTIONS: dict[str, Any] = {"cpp_wrapper": True, "assert_indirect_indexing": False}


class CompiledEngine:
    """Takes steps by a compiled loop.

    Parameters
    ----------
    fused : FusedEngine
        Holds the state, and takes over where compilation fails.
    batch_size : int
        Rows that a step takes.
    ragged : bool
        Whether some batches hold fewer rows than others.
    """

    name = "compiled"

    def __init__(self, fused: FusedEngine, *, batch_size: int, ragged: bool) -> None:
        self._fused, self._ragged = fused, ragged
        n_rows = batch_size * len(fused.chains)
        most = min(NUMBERS_AT_ONCE // fused.noise_size, ROWS_AT_ONCE // n_rows, MOST_AT_ONCE)
        self.max_steps_per_call = max(most, LEAST_AT_ONCE)
        self._call: Callable[..., Any] | None = None
        self._carry: list[Tensor] | None = None
        self._failed = False
        if not is_plain(fused):
            self._give_up(
                "only Adam and AdamW are compiled, and nothing that draws random numbers of its own"
            )

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps, and write down the nll and the KL divergence before each."""
        if self._failed:
            self._fused.run(steps, losses)
            return
        places = self._fused.next_noise(len(steps))
        try:
            carry, parts = self._take(steps, places)
        except Exception as error:  # whatever the compiler, the module or the prototype raises
            self._give_up(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
            self._fused.run_with(steps, losses, places)
            return
        if not np.isfinite(parts).all() or not all(bool(t.isfinite().all()) for t in carry[:2]):
            self.sync()  # to before these steps: taken one by one, they tell what went wrong
            self._fused.run_with(steps, losses, places)
            return
        self._carry = carry
        self._fused.n_steps += len(steps)
        self._adam.n_steps += len(steps)
        losses[:] = parts

    def sync(self) -> None:
        """Hand the learnt values over."""
        if self._carry is not None:
            for own, values in zip(self._tensors(), self._carry, strict=True):
                own.copy_(values)
            self._carry = None
        self._fused.sync()

    def state_dict(self) -> dict[str, Tensor]:
        """Give the state of the fused engine, which is that of this one after `sync`."""
        return self._fused.state_dict()

    def load_state_dict(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self._fused.load_state_dict(memory)

    @property
    def _autocast(self) -> torch.dtype | None:
        return self._fused.chains[0].network.autocast

    @property
    def _adam(self) -> FlatAdam:
        assert isinstance(self._fused.optimizer, FlatAdam)
        return self._fused.optimizer

    def _tensors(self) -> list[Tensor]:
        return [*self._adam.tensors, *self._adam.first, *self._adam.second]

    def _give_up(self, reason: str) -> None:
        self.sync()
        self._failed = True
        self.name = self._fused.name
        warnings.warn(
            f"The steps could not be compiled and are taken by engine='fused': {reason}",
            RuntimeWarning,
            stacklevel=2,
        )

    def _take(self, steps: Steps, places: Tensor) -> tuple[list[Tensor], np.ndarray]:
        """Take the steps from where the state is; give the state after them, and the losses."""
        carry = self._carry or [tensor.clone() for tensor in self._tensors()]
        by_step = self._by_step(steps, places)
        data = [steps.x, steps.y]
        if steps.row_weight is not None:
            data.append(steps.row_weight)
        with torch.no_grad(), pyro.validation_enabled(False):
            if self._call is None:
                step = self._step_function(
                    has_rows=steps.rows is not None, is_weighted=steps.row_weight is not None
                )
                call = compile_loop(step, carry, by_step, data, self.max_steps_per_call)
                start = carry
                carry, parts = call(carry, by_step, data)
                first = self._fused.noise_at(places[:1])[0]
                self._compare(steps, first, parts[0])
                if self._ragged:
                    self._check_filling(step, start, steps, places, data)
                self._call = call
                _OUTLINES.add(_outline(self._fused, steps))
            else:
                carry, parts = self._call(carry, by_step, data)
        losses = parts.double().cpu().numpy().reshape((len(steps), 2, -1))
        losses[:, 0] /= steps.step_weight[:, None]
        return list(carry), losses

    def _by_step(self, steps: Steps, places: Tensor) -> list[Tensor]:
        """Give what each step needs: its noise's place, weights, Adam's factors, and its rows."""
        adam = self._adam
        like = adam.tensors[0]
        count = adam.n_steps + 1 + np.arange(len(steps))
        factors = [
            steps.data_weight,
            steps.kl_weight * steps.step_weight,
            steps.lr / (1 - adam.beta1**count),
            (1 - adam.beta2**count) ** -0.5,
            1 - steps.lr * adam.weight_decay,
        ]
        by_step = [places, torch.as_tensor(np.stack(factors, 1)).to(like)]
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
        self, *, has_rows: bool, is_weighted: bool
    ) -> Callable[..., tuple[Tensor, ...]]:
        """Give one step as a function of tensors: the carry, what differs by step, the data."""
        fused = self._fused
        loss, adam, clip_norm = fused.loss, self._adam, fused.clip_norm
        n_chains = len(fused.chains)
        lead = int(n_chains > 1)
        n = len(adam.tensors)
        ragged = has_rows and self._ragged

        def step(*tensors: Tensor) -> tuple[Tensor, ...]:
            now, first, second = tensors[:n], tensors[n : 2 * n], tensors[2 * n : 3 * n]
            place, factors, *rest = tensors[3 * n :]
            rows, data = rest[: has_rows + ragged], rest[has_rows + ragged :]
            data_weight, kl_weight, rate, root, keep = factors.unbind()
            if has_rows:
                data = [tensor[rows[0]] for tensor in data]
            elif lead:
                data = [tensor.expand((n_chains, *tensor.shape)) for tensor in data]
            x, y, *weights = data
            row_weight = weights[0] if is_weighted else None
            if ragged:
                row_weight = rows[1] if row_weight is None else rows[1] * row_weight
            here = loss(
                now[0],
                now[1],
                now[2:],
                fused.noise_at(place, traced=True),
                x,
                y,
                data_weight=data_weight,
                kl_weight=kl_weight,
                row_weight=row_weight,
            )
            slopes = [here.d_loc, here.d_rho, *here.d_points]
            if clip_norm is not None:
                slopes = clipped(slopes, clip_norm, lead)
            updated: list[list[Tensor]] = [[], [], []]
            for value, m, v, slope in zip(now, first, second, slopes, strict=True):
                if adam.weight_decay and adam.decoupled:
                    value = value * keep
                elif adam.weight_decay:
                    slope = slope + adam.weight_decay * value
                m = m + (1 - adam.beta1) * (slope - m)
                v = adam.beta2 * v + (1 - adam.beta2) * slope * slope
                value = value - rate * m / (v.sqrt() * root + adam.eps)
                for column, tensor in zip(updated, (value, m, v), strict=True):
                    column.append(tensor)
            return (*updated[0], *updated[1], *updated[2], torch.stack([here.nll, here.kl]))

        return step

    def _compare(self, steps: Steps, noise: Tensor, parts: Tensor) -> None:
        """Raise if the compiled losses of a step are not those of the fused engine."""
        step = self._fused.step_at(steps, 0, noise)
        expected = torch.stack([step.nll, step.kl])
        tolerance = TOLERANCE if self._autocast is None else TOLERANCE_IN_AUTOCAST
        if not torch.allclose(parts, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise RuntimeError(
                f"the compiled losses {parts.flatten().tolist()} are not those expected, "
                f"{expected.flatten().tolist()}"
            )

    def _check_filling(
        self,
        step: Callable[..., tuple[Tensor, ...]],
        carry: Sequence[Tensor],
        steps: Steps,
        places: Tensor,
        data: Sequence[Tensor],
    ) -> None:
        """Raise if the rows that fill up a smaller batch count, as where rows see each other."""
        less = replace(steps, n_rows=(steps.n_rows + 1) // 2)
        first = [tensor[0] for tensor in self._by_step(less, places)]
        parts = step(*carry, *first, *data)[-1]
        expected = self._fused.step_at(less, 0, self._fused.noise_at(places[:1])[0])
        tolerance = torch.finfo(parts.dtype).eps ** 0.5  # the same sum, but for its rounding
        if self._autocast is not None:
            tolerance = TOLERANCE_IN_AUTOCAST
        if not torch.allclose(parts[0], expected.nll, rtol=tolerance, atol=tolerance):
            raise RuntimeError("the rows of a batch see each other, and the last batch is smaller")


def is_plain(fused: FusedEngine) -> bool:
    """Say whether nothing is known beforehand that would not compile."""
    random = any(
        isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.training and module.p > 0
        for module in fused.chains[0].network.net.modules()
    )
    random = random or fused.loss.estimator != "reparam"
    return isinstance(fused.optimizer, FlatAdam) and not random


def compile_loop(
    step: Callable[..., tuple[Tensor, ...]],
    carry: Sequence[Tensor],
    by_step: Sequence[Tensor],
    data: Sequence[Tensor],
    at_once: int,
) -> Callable[..., tuple[list[Tensor], Tensor]]:
    """Compile many steps into one call; once for fits that take the same steps.

    Parameters
    ----------
    step : callable
        ``(*carry, *by_step[i], *data) -> (*carry, result)``.
    carry, by_step, data : sequence of Tensor
        Examples. The first dimension of those by step is that of the steps.
    at_once : int
        How many steps a call takes at most.

    Returns
    -------
    callable
        ``(carry, by_step, data) -> (carry, results)``.

    Raises
    ------
    RuntimeError
        If a step draws random numbers or changes a tensor in place.
    """
    from torch._higher_order_ops.while_loop import while_loop

    inputs = (*carry, *(tensor[0] for tensor in by_step), *data)
    traced = _graph_of(step, inputs)
    output: Any = traced.graph.output_node()
    result = output.args[0][-1].meta["val"]
    shape, dtype = (at_once, *result.shape), result.dtype

    kinds = tuple((t.shape, t.stride(), t.dtype, t.device) for t in inputs)
    constants = {
        node.target: getattr(traced, node.target)
        for node in traced.graph.nodes
        if node.op == "get_attr" and isinstance(node.target, str)
    }
    # torch compiles for a number of threads
    key = (traced.code, kinds, at_once, torch.get_num_threads())
    if key in _COMPILED:
        before, known = _COMPILED[key]
        if all(torch.equal(before[name], constants[name]) for name in constants):
            return known

    def many(
        carry: list[Tensor], by_step: list[Tensor], data: list[Tensor], n_steps: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        def goes_on(i: Tensor, results: Tensor, *carry: Tensor) -> Tensor:
            return i < n_steps

        def take_one(i: Tensor, results: Tensor, *carry: Tensor) -> tuple[Tensor, ...]:
            own = [tensor.index_select(0, i.reshape(1)).squeeze(0) for tensor in by_step]
            *after, result = traced(*carry, *own, *data)
            return (i + 1, results.index_put((i,), result), *after)

        start = torch.zeros_like(n_steps), torch.zeros(shape, dtype=dtype, device=n_steps.device)
        _, results, *carry = while_loop(goes_on, take_one, (*start, *carry))
        return carry, results

    # torch keeps what it compiled by code object, a few for each: this one is for these steps only.
    own = FunctionType(
        many.__code__.replace(), many.__globals__, many.__name__, None, many.__closure__
    )
    options = {name: value for name, value in OPTIONS.items() if _is_option(name)}
    compiled = torch.compile(own, fullgraph=True, dynamic=False, options=options)

    def call(
        carry: Sequence[Tensor], by_step: Sequence[Tensor], data: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        n_steps = torch.tensor(len(by_step[0]), device=carry[0].device)
        filled = [_filled(tensor, at_once) for tensor in by_step]
        after, results = compiled(list(carry), filled, list(data), n_steps)
        return after, results[: len(by_step[0])]

    _COMPILED[key] = constants, call
    if len(_COMPILED) > MOST_KEPT:
        del _COMPILED[next(iter(_COMPILED))]
    return call


def _graph_of(step: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> GraphModule:
    """Trace a step into torch operations, none of which draws or changes anything."""
    from torch.fx.experimental.proxy_tensor import make_fx

    traced = make_fx(
        step,
        decomposition_table={torch.ops.aten.gather.default: _gather_one},
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )(*inputs)
    for node in traced.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            if torch.Tag.nondeterministic_seeded in node.target.tags:
                raise RuntimeError("the module draws random numbers")
            if node.target._schema.is_mutable:
                raise RuntimeError("the module changes a tensor in place")
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _filled(tensor: Tensor, n: int) -> Tensor:
    """Lengthen the first dimension; what is added is never read."""
    if len(tensor) == n:
        return tensor
    filled = tensor.new_empty((n, *tensor.shape[1:]))
    filled[: len(tensor)] = tensor
    return filled


def _gather_one(source: Tensor, dim: int, index: Tensor, **options: Any) -> Tensor:
    """Gather one element of each line by comparing places.

    The class probability of a label is gathered so. For processors with AVX-512, torch's compiler
    makes C++ of such a gather that uses the place before it is declared.
    """
    dim %= source.dim()
    if index.shape != (*source.shape[:dim], 1, *source.shape[dim + 1 :]):
        return NotImplemented
    places = torch.arange(source.shape[dim], device=index.device)
    is_here = places.reshape((-1, *(1,) * (source.dim() - dim - 1))) == index
    return torch.where(is_here, source, source.new_zeros(())).sum(dim, keepdim=True)


def was_compiled(fused: FusedEngine, steps: Steps) -> bool:
    """Say whether steps that look the same have been compiled in this process."""
    return _outline(fused, steps) in _OUTLINES


MOST_KEPT = 16
_COMPILED: dict[Any, tuple[dict[str, Tensor], Callable[..., Any]]] = {}
_OUTLINES: set[str] = set()


def _outline(fused: FusedEngine, steps: Steps) -> str:
    network = fused.chains[0].network
    shapes = [tuple(tensor.shape) for tensor in (*fused.state, steps.x, steps.y)]
    rows = None if steps.rows is None else tuple(steps.rows.shape[1:])
    weighted = steps.row_weight is not None
    model = f"{network.net} {network.prior} {network.likelihood} {network.autocast}"
    return f"{model} {shapes} {fused.state[0].dtype} {rows} {weighted}"


def _is_option(name: str) -> bool:
    import torch._inductor.config as config

    return hasattr(config, name)
