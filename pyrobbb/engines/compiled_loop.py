"""A compiled loop over training steps, cached for later fits that take the same steps."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from .._core.messages import first_line
from .step_graphs import Step, lift_constants, loop_over, trace_step

Loop = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], tuple[list[Tensor], Tensor]]
"""``(carry, by_step, data) -> (carry, results)``."""

T = TypeVar("T")

CACHE_SIZE = 16
MIN_TORCH = (2, 6)
"""The first version of torch whose compiled loop the tests have run with."""
OPTIONS: dict[str, Any] = {
    "cpp_wrapper": True,
    "assert_indirect_indexing": False,
    # They look for patterns such as attention written out, and make all patterns first, which takes
    # a tenth of a compilation. In the gradients that a step computes there are none.
    "use_joint_graph_passes": False,
    # Without this torch compiles any graph with a loop anew. Its key of the cache on disk has the
    # code of the nested graphs; the value is a version of it.
    "unsafe_marked_cacheable_functions": {"torch.ops.higher_order.while_loop": "1"},
}


class TensorKind(NamedTuple):
    """The properties of a tensor that compiled code depends on."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> TensorKind:
        """Return the properties of a tensor."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)


class LoopSpec(NamedTuple):
    """The properties of a loop that are known before its step is traced.

    Attributes
    ----------
    inputs : tuple of TensorKind
        Properties of the inputs of one step.
    max_steps : int
        Maximum number of steps per call.
    n_threads : int
        Number of threads that the code is compiled for.
    """

    inputs: tuple[TensorKind, ...]
    max_steps: int
    n_threads: int

    @classmethod
    def of(cls, inputs: Iterable[Tensor], max_steps: int) -> LoopSpec:
        """Return the specification for example inputs of a step."""
        kinds = tuple(TensorKind.of(tensor) for tensor in inputs)
        return cls(kinds, max_steps, torch.get_num_threads())


@dataclass(frozen=True)
class LoopKey:
    """Everything that a compiled loop depends on.

    Attributes
    ----------
    spec : LoopSpec
    code : str
        Code of the traced step.
    constants : tuple
        What the code refers to besides its inputs: the properties of tensors, such as a frozen
        weight or a parameter of a prior, which are further inputs of the loop; and nested graphs,
        each equal only to itself.
    model : str
        Description of the model, which is not compared: models with the same description may have
        different code, and models with different descriptions the same code.
    """

    spec: LoopSpec
    code: str
    constants: tuple[TensorKind | nn.Module, ...]
    model: str = field(compare=False)


class LoopCache:
    """Cache of the compiled loops of this process, which evicts the least recently used one."""

    def __init__(self, max_size: int = CACHE_SIZE) -> None:
        self._max_size = max_size
        self._loops: OrderedDict[LoopKey, Loop] = OrderedDict()

    def __len__(self) -> int:
        return len(self._loops)

    def get(self, key: LoopKey) -> Loop | None:
        """Return the loop with this key, or None."""
        if key in self._loops:
            self._loops.move_to_end(key)
        return self._loops.get(key)

    def put(self, key: LoopKey, loop: Loop) -> None:
        """Store a loop."""
        self._loops[key] = loop
        if len(self._loops) > self._max_size:
            self._loops.popitem(last=False)

    def has_similar(self, spec: LoopSpec, model: str) -> bool:
        """Return whether there is a loop with this specification and model description."""
        return any(key.spec == spec and key.model == model for key in self._loops)


logger = logging.getLogger(__name__)

LOOPS = LoopCache()


def compile_loop(
    step: Step,
    carry: Sequence[Tensor],
    by_step: Sequence[Tensor],
    data: Sequence[Tensor],
    max_steps: int,
    model: str,
) -> Loop:
    """Compile a loop over steps into one call, or return a loop from the cache.

    Parameters
    ----------
    step : callable
        ``(*carry, *by_step[i], *data) -> (*carry, result)``.
    carry, by_step, data : sequence of Tensor
        Example inputs: the state that a step updates; tensors whose first dimension is that of
        the steps; tensors that all steps share.
    max_steps : int
        Maximum number of steps per call.
    model : str
        Description of the model, for `LoopCache.has_similar`.

    Returns
    -------
    callable
        ``(carry, by_step, data) -> (carry, results)``.

    Raises
    ------
    RuntimeError
        If a step draws random numbers or changes a tensor in place, or torch is too old.
    """
    number = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if number < MIN_TORCH:
        oldest = ".".join(map(str, MIN_TORCH))
        raise RuntimeError(
            f"compiled steps need torch {oldest} or later, but this is torch {torch.__version__}"
        )
    inputs = (*carry, *(tensor[0] for tensor in by_step), *data)
    traced = trace_step(step, inputs)
    constants, nested = lift_constants(traced)
    kinds: list[TensorKind | nn.Module] = [*map(TensorKind.of, constants), *nested]
    key = LoopKey(LoopSpec.of(inputs, max_steps), traced.code, tuple(kinds), model)
    compiled = LOOPS.get(key)
    if compiled is None:
        compiled = _compile(traced, len(by_step), max_steps)
        LOOPS.put(key, compiled)
    return lambda carry, by_step, data: compiled(carry, by_step, [*data, *constants])


def was_compiled(inputs: Iterable[Tensor], max_steps: int, model: str) -> bool:
    """Return whether a similar loop is in the cache, without tracing its step.

    Parameters
    ----------
    inputs : iterable of Tensor
        Example inputs of one step.
    max_steps, model
        As for `compile_loop`.
    """
    return LOOPS.has_similar(LoopSpec.of(inputs, max_steps), model)


def _compile(traced: GraphModule, n_by_step: int, max_steps: int) -> Loop:
    """Return a loop over a traced step, which is compiled in its first call.

    torch's compiler is given the graph. `torch.compile` would first interpret the bytecode of a
    function, and import the modules for that: a sixth of a first compilation, and half the time
    that a later process takes to find the code on disk.
    """
    from torch._inductor import compile as compile_graph
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    graph = loop_over(traced, n_by_step, max_steps)
    options = {name: value for name, value in OPTIONS.items() if _is_option(name)}
    compiled: Callable[..., Sequence[Tensor]] | None = None

    def loop(
        carry: Sequence[Tensor], by_step: Sequence[Tensor], data: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        nonlocal compiled
        n_steps = torch.tensor(len(by_step[0]), device=carry[0].device)
        inputs = [*carry, *(_pad(t, max_steps) for t in by_step), *data, n_steps]
        if compiled is None:
            mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
            fakes: list[Any] = [mode.from_tensor(tensor, static_shapes=True) for tensor in inputs]
            compiled = _without_trial_builds(lambda: compile_graph(graph, fakes, options))
        *after, results = compiled(*inputs)
        return after, results[: len(by_step[0])]

    return loop


def _without_trial_builds(build: Callable[[], T]) -> T:
    """Compile, without the builds by which torch first tries the C++ compiler.

    For each instruction set of the processor, and for some of their flags, torch builds and loads a
    small program: 9 of the 16 seconds of processor time of a first compilation. Where the compiler
    does not support one of them, the build of the function fails, and is repeated after these
    trials.
    """
    import torch._inductor.config as config
    from torch._inductor import cpu_vec_isa

    if cpu_vec_isa.valid_vec_isa_list.cache_info().currsize or config.cpp.vec_isa_ok is not None:
        return build()
    kind: Any = cpu_vec_isa.VecISA
    check_build = kind.check_build
    try:
        kind.check_build = lambda isa, code: True
        return build()
    except Exception as error:
        logger.info("The C++ compiler is tried for each instruction set: %s", first_line(error))
    finally:
        kind.check_build = check_build
        forget_instruction_sets()  # other uses of torch's compiler try them
    return build()


def forget_instruction_sets() -> None:
    """Clear torch's records of the instruction sets and flags that the C++ compiler supports."""
    from torch._inductor import cpu_vec_isa

    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    for isa in cpu_vec_isa.supported_vec_isa_list:
        for method in (getattr(type(isa), name) for name in dir(type(isa))):
            if hasattr(method, "cache_clear"):
                method.cache_clear()
        for flag in [name for name in vars(isa) if name.endswith("_supported")]:
            delattr(isa, flag)


def _pad(tensor: Tensor, n: int) -> Tensor:
    """Extend the first dimension by values that are never read."""
    if len(tensor) == n:
        return tensor
    padded = tensor.new_empty((n, *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    return padded


def _is_option(name: str) -> bool:
    import torch._inductor.config as config

    return hasattr(config, name)
