"""The graph of a training step as torch operations, and that of a loop over steps."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

Step = Callable[..., tuple[Tensor, ...]]
"""``(*carry, *by_step[i], *data) -> (*carry, result)``."""


def trace_step(step: Step, inputs: Sequence[Tensor]) -> GraphModule:
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


def lift_constants(traced: GraphModule) -> tuple[list[Tensor], list[nn.Module]]:
    """Make the tensors that a graph refers to its last inputs; return them, and other objects.

    The code then serves other values of them, such as those of another frozen weight.
    """
    *_, last = (node for node in traced.graph.nodes if node.op == "placeholder")
    tensors, others = [], dict[str, nn.Module]()
    inputs: dict[str, Node] = {}
    for node in [node for node in traced.graph.nodes if node.op == "get_attr"]:
        value = getattr(traced, node.target)
        if not isinstance(value, Tensor):
            others[node.target] = value
            continue
        if node.target not in inputs:
            tensors.append(value.detach())
            with traced.graph.inserting_after(last):
                last = inputs[node.target] = traced.graph.placeholder(f"constant{len(tensors)}")
        node.replace_all_uses_with(inputs[node.target])
        traced.graph.erase_node(node)
    traced.recompile()
    return tensors, list(others.values())


def loop_over(traced: GraphModule, n_by_step: int, max_steps: int) -> GraphModule:
    """Return a graph of torch's `while_loop` over a traced step.

    Its inputs are ``(*carry, *by_step, *data, n_steps)``, its outputs ``(*carry, results)``.
    """
    from torch._higher_order_ops.while_loop import while_loop_op

    aten = torch.ops.aten
    given = [node.name for node in traced.graph.nodes if node.op == "placeholder"]
    output: Any = traced.graph.output_node()
    result = output.args[0][-1].meta["val"]
    n_carry = len(output.args[0]) - 1

    def graph_of_loop() -> tuple[Graph, list[Node]]:
        """Return a graph with the inputs of the loop's condition and body."""
        graph = Graph()
        return graph, [graph.placeholder(n) for n in ("i", "results", *given, "n_steps")]

    condition, (i, *_, n_steps) = graph_of_loop()
    condition.output(condition.call_function(aten.lt.Tensor, (i, n_steps)))

    body, (i, results, *inputs, n_steps) = graph_of_loop()
    row = body.call_function(aten.reshape.default, (i, [1]))
    for k in range(n_carry, n_carry + n_by_step):
        chosen = body.call_function(aten.index_select.default, (inputs[k], 0, row))
        inputs[k] = body.call_function(aten.squeeze.dim, (chosen, 0))
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    copied: Any = body.graph_copy(traced.graph, dict(zip(placeholders, inputs, strict=True)))
    results = body.call_function(aten.index_put.default, (results, [i], copied[-1]))
    body.output((body.call_function(aten.add.Tensor, (i, 1)), results, *copied[:-1]))

    loop = Graph()
    inputs = [loop.placeholder(name) for name in (*given, "n_steps")]
    start = loop.call_function(aten.zeros_like.default, (inputs[-1],))
    options = {"dtype": result.dtype, "device": result.device}
    results = loop.call_function(aten.zeros.default, ([max_steps, *result.shape],), options)
    parts = loop.get_attr("condition"), loop.get_attr("body")
    carried, rest = (start, results, *inputs[:n_carry]), tuple(inputs[n_carry:])
    after = loop.call_function(while_loop_op, (*parts, carried, rest))
    numbers = (*range(2, n_carry + 2), 1)
    loop.output(tuple(loop.call_function(operator.getitem, (after, k)) for k in numbers))
    root = nn.Module()
    root.condition, root.body = GraphModule(nn.Module(), condition), GraphModule(traced, body)
    return GraphModule(root, loop)


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
