"""A compiled loop over training steps, cached for later fits that take the same steps."""

from __future__ import annotations

import copy
import hashlib
import logging
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .._core.messages import first_line

Step = Callable[..., tuple[Tensor, ...]]
"""``(*carry, *by_step[i], *data) -> (*carry, result)``."""

Loop = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], tuple[list[Tensor], Tensor]]
"""``(carry, by_step, data) -> (carry, results)``."""

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
    constants : tuple of str
        A digest of each tensor that the code uses besides its inputs, such as a frozen weight or a
        parameter of a prior.
    model : str
        Description of the model, which is not compared: models with the same description may have
        different code, and models with different descriptions the same code.
    """

    spec: LoopSpec
    code: str
    constants: tuple[str, ...]
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
    traced = _trace(step, inputs)
    digests = tuple(_digest(constant) for constant in _copy_constants(traced))
    key = LoopKey(LoopSpec.of(inputs, max_steps), traced.code, digests, model)
    loop = LOOPS.get(key)
    if loop is None:
        loop = _compile(traced, max_steps)
        LOOPS.put(key, loop)
    return loop


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


def _trace(step: Step, inputs: Sequence[Tensor]) -> GraphModule:
    """Trace a step into a graph of torch operations.

    Raise if any is random, or changes an input or a constant: the compiler does not allow changes
    of the inputs of a loop, and the module's buffers would not follow.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    traced = make_fx(
        step,
        decomposition_table={torch.ops.aten.gather.default: _gather_one},
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )(*inputs)
    for node in traced.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            if "_rnn" in node.target.name():
                raise RuntimeError("the module has recurrent layers")
            if _draws_numbers(node):
                raise RuntimeError("the module draws random numbers")
            if node.target._schema.is_mutable and _storage(node).op != "call_function":
                raise RuntimeError("the module changes a tensor in place")
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _draws_numbers(node: Node) -> bool:
    """Return whether an operation draws random numbers; attention without dropout does not."""
    operation: Any = node.target
    if torch.Tag.nondeterministic_seeded not in operation.tags:
        return False
    names = [argument.name for argument in operation._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return "dropout_p" not in names or bool(given.get("dropout_p"))


def _storage(node: Node) -> Node:
    """Return the node whose storage the result of a node shares, through views and changes."""
    while node.op == "call_function":
        target, source = node.target, None
        if target is operator.getitem:
            source = node.args[0]
        elif isinstance(target, torch._ops.OpOverload):
            shared = [a.alias_info is not None for a in target._schema.arguments]
            source = next(
                (a for a, is_shared in zip(node.args, shared, strict=False) if is_shared), None
            )
        if not isinstance(source, Node):
            break
        node = source
    return node


def _copy_constants(traced: GraphModule) -> list[Any]:
    """Replace the constants of a graph with copies, and return the copies.

    A later change of a frozen weight in place would otherwise change a cached loop.
    """
    names = {node.target: None for node in traced.graph.nodes if node.op == "get_attr"}
    for name in names:
        setattr(traced, name, copy.deepcopy(getattr(traced, name)))
    return [getattr(traced, name) for name in names]


def _digest(constant: Any) -> str:
    if not isinstance(constant, Tensor):  # a nested graph: equal only to itself
        return f"{type(constant).__name__} {id(constant)}"
    kind = f"{TensorKind.of(constant)}"
    values = constant.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(kind.encode() + values.tobytes()).hexdigest()


def _compile(traced: GraphModule, max_steps: int) -> Loop:
    from torch._higher_order_ops.while_loop import while_loop

    output: Any = traced.graph.output_node()
    result = output.args[0][-1].meta["val"]
    shape, dtype = (max_steps, *result.shape), result.dtype

    def run_steps(
        carry: list[Tensor], by_step: list[Tensor], data: list[Tensor], n_steps: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        def has_next(i: Tensor, results: Tensor, *carry: Tensor) -> Tensor:
            return i < n_steps

        def take_step(i: Tensor, results: Tensor, *carry: Tensor) -> tuple[Tensor, ...]:
            now = [tensor.index_select(0, i.reshape(1)).squeeze(0) for tensor in by_step]
            *after, result = traced(*carry, *now, *data)
            return (i + 1, results.index_put((i,), result), *after)

        start = torch.zeros_like(n_steps), torch.zeros(shape, dtype=dtype, device=n_steps.device)
        _, results, *carry = while_loop(has_next, take_step, (*start, *carry))
        return carry, results

    # torch caches compiled code by code object, and limits the number of entries for each. If every
    # loop has a different code object, no loop replaces another.
    unique = FunctionType(
        run_steps.__code__.replace(),
        run_steps.__globals__,
        run_steps.__name__,
        None,
        run_steps.__closure__,
    )
    options = {name: value for name, value in OPTIONS.items() if _is_option(name)}
    compiled = torch.compile(unique, fullgraph=True, dynamic=False, options=options)
    is_compiled = False

    def loop(
        carry: Sequence[Tensor], by_step: Sequence[Tensor], data: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        nonlocal is_compiled
        n_steps = torch.tensor(len(by_step[0]), device=carry[0].device)
        arguments = list(carry), [_pad(t, max_steps) for t in by_step], list(data), n_steps
        call = compiled if is_compiled else lambda *inputs: _without_trial_builds(compiled, inputs)
        after, results = call(*arguments)
        is_compiled = True
        return after, results[: len(by_step[0])]

    return loop


def _without_trial_builds(compiled: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call a compiled function, without the builds by which torch first tries the C++ compiler.

    For each instruction set of the processor, and for some of their flags, torch builds and loads a
    small program: 9 of the 16 seconds of processor time of a first compilation. Where the compiler
    does not support one of them, the build of the function fails, and is repeated after these
    trials.
    """
    import torch._inductor.config as config
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import cpu_vec_isa

    if cpu_vec_isa.valid_vec_isa_list.cache_info().currsize or config.cpp.vec_isa_ok is not None:
        return compiled(*arguments)
    kind: Any = cpu_vec_isa.VecISA
    check_build = kind.check_build
    try:
        kind.check_build = lambda isa, code: True
        return compiled(*arguments)
    except TorchDynamoException as error:
        logger.info("The C++ compiler is tried for each instruction set: %s", first_line(error))
    finally:
        kind.check_build = check_build
        forget_instruction_sets()  # other uses of torch's compiler try them
    return compiled(*arguments)


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


def _gather_one(source: Tensor, dim: int, index: Tensor, **options: Any) -> Tensor:
    """Gather one element along a dimension by comparing indices.

    The log-probability of a class label is such a gather. For processors with AVX-512,
    torch's compiler generates C++ for such a gather that uses the index before its declaration.
    """
    dim %= source.dim()
    if index.shape != (*source.shape[:dim], 1, *source.shape[dim + 1 :]):
        return NotImplemented
    indices = torch.arange(source.shape[dim], device=index.device)
    is_here = indices.reshape((-1, *(1,) * (source.dim() - dim - 1))) == index
    return torch.where(is_here, source, source.new_zeros(())).sum(dim, keepdim=True)


def _is_option(name: str) -> bool:
    import torch._inductor.config as config

    return hasattr(config, name)
