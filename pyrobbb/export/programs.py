"""Programs: a module of torch as a `.pt2` file of `torch.export`, or as an ONNX model."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._core.global_state import ordinary_modes, without_messages_of, without_validation
from .._core.trees import Inputs, labelled_arrays, map_arrays
from .decompositions import onnx_decompositions

METADATA = "pyrobbb.json"
"""Name of the metadata among the extra files of a `.pt2` file."""
MAX_ONNX_BYTES = 2**31 - 2**20
"""An ONNX file is a message of protobuf, of less than 2 GiB."""


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Export within the block without warnings, and without the fused path of attention.

    That path is an operation that no other runtime has.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    with (
        warnings.catch_warnings(),
        without_messages_of("torch.onnx", "torch._export"),
        ordinary_modes(grad=False),
        without_validation(),
    ):
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


def exported_program(module: nn.Module, x: Inputs) -> torch.export.ExportedProgram:
    """Return the program of a module, for any number of rows.

    Parameters
    ----------
    module : nn.Module
        Whose `forward` takes x.
    x : Inputs of shape (n, ...)
        An example, of at least two rows.
    """
    n = torch.export.Dim("n")
    shapes = (map_arrays(lambda _: {0: n}, x),)
    config: Any = torch._dynamo.config
    with config.patch(recompile_limit=10_000, accumulated_recompile_limit=10_000):
        return torch.export.export(module, (x,), dynamic_shapes=shapes, strict=False)


def torch_file(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a `.pt2` file."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(dict(metadata))})
    return buffer.getvalue()


def onnx_file(
    program: torch.export.ExportedProgram,
    x: Inputs,
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> bytes:
    """Return the bytes of an ONNX file.

    Parameters
    ----------
    program : ExportedProgram
    x : Inputs
        The example; its arrays name the inputs.
    outputs : sequence of str
        Names of the outputs.
    metadata : mapping of str to str
    """
    converted: Any = torch.onnx.export(
        program.run_decompositions(onnx_decompositions()),
        dynamo=True,
        verbose=False,
    )
    _name_values(converted.model.graph, list(labelled_arrays("x", x)), outputs)
    converted.model.metadata_props.update(metadata)
    proto = converted.model_proto
    if proto.ByteSize() > MAX_ONNX_BYTES:
        raise ValueError(
            f"`n_draws` is too large for an ONNX file, which must be smaller than 2 GiB, got "
            f"{proto.ByteSize() / 2**30:.1f} GiB: use fewer draws, or format='torch'."
        )
    content: bytes = proto.SerializeToString()
    return content


def _name_values(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the inputs and outputs of an ONNX graph, and rename inner values with these names.

    The argument `output_names` of the exporter leaves two values with the same name, where a loop
    has an operation such as "mean".
    """
    import onnx_ir

    named = dict(zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True))
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph):
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.name in named.values():
                value.name = f"{value.name}_inside"
    for value, name in named.items():
        value.name = name


def run_torch(content: bytes, x: Inputs) -> dict[str, Tensor]:
    """Return the outputs of a `.pt2` file."""
    program: Any = torch.export.load(io.BytesIO(content)).module()
    outputs: dict[str, Tensor] = program(x)
    return outputs


def run_onnx(content: bytes, x: Inputs) -> dict[str, Tensor]:
    """Return the outputs of an ONNX file, by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = {name: array.numpy() for name, array in labelled_arrays("x", x).items()}
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, inputs)
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}
