"""Writing a posterior to a file that predicts without pyrobbb."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, as_count, to_numpy
from .._core.messages import first_line, is_one_of, shown
from .._core.scratch_files import replacing
from .._core.trees import Inputs, clone, map_arrays, n_rows
from ..fitted import FittedChain
from ..fitted.draws import predict_from, sources_of
from ..likelihoods import base_of
from ..model.observation import distribution_given
from . import programs
from .culprits import failing_module
from .families import family_of
from .prediction_graph import PredictionGraph
from .units import Units

Format = Literal["torch", "onnx"]
SUFFIXES = {".pt2": "torch", ".onnx": "onnx"}
MIN_TORCH = (2, 13)
"""Loops in exported programs, of which torch 2.6 has another form. Versions between have not been
tried."""
N_EXAMPLE_ROWS = 7
OF_CLASSES = ("probs", "label", "entropy", "expected_entropy", "mutual_information")
OF_NUMBERS = ("mean", "sd", "epistemic_sd", "aleatoric_sd")
TOLERANCE = 1e-4
"""Largest difference from the prediction, relative to its largest value, with which a program is
written. Rounding makes much smaller ones."""


def export_chains(
    chains: Sequence[FittedChain],
    path: str | os.PathLike[str],
    format: Format | None = None,
    *,
    n_draws: int,
    seed: int,
    quantiles: ArrayLike,
    units: Units | None = None,
    predict: Callable[[Any], Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write what `predict` computes, with fixed draws of the weights, as one file.

    The file is written only if its outputs for some rows are those of the prediction.

    Parameters
    ----------
    chains : sequence of FittedChain
    path : path-like
        A file that exists is replaced at the end.
    format : {"torch", "onnx"}, optional
        None: by the suffix of the path, `.pt2` or `.onnx`.
    n_draws, seed : int
        As for `Posterior.predict`, whose draws are used.
    quantiles : array-like of shape (k,)
        Probabilities of the quantiles of a regression, in (0, 1).
    units : Units, optional
        Those of an estimator.
    predict : callable, optional
        Returns the estimator's prediction for x.
    metadata : mapping, optional
        Further plain data to store.

    Raises
    ------
    FileNotFoundError
        If the folder of the file does not exist.
    ImportError
        If the packages for ONNX are missing, or torch is too old.
    ValueError
        If an argument is invalid, or a part of the model cannot be exported, which is named.
    """
    path = Path(path)
    format = _format_of(path, format)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path` must lie in a folder that exists, got {str(path)!r}.")
    n_draws = as_count("n_draws", n_draws)
    levels = _levels(quantiles)
    _check_packages(format)
    units = Units() if units is None else units
    sources = sources_of(chains, n_draws, seed)
    network = sources[0].network
    x = _example(chains[0].example, units)
    if predict is None:
        traits = network.traits(network.prepare_inputs(x))
        if traits.draws_numbers:
            raise ValueError(
                f"`net` ({type(network.net).__name__}) draws random numbers when it predicts: it "
                "cannot be exported."
            )
        prediction = predict_from(chains, x, n_draws, seed)
    else:
        prediction = predict(to_numpy(x))
    in_network_units = chains[0].example
    with programs.quiet_exporter():
        base = _distribution(chains[0], in_network_units)
    family = family_of(base, levels, fitted=format == "onnx")
    expected = _expected(prediction, levels)
    graph = PredictionGraph(
        sources, in_network_units, family, units, units.corrected(levels)
    ).eval()
    stored = {
        "pyrobbb": version("pyrobbb"),
        "torch": str(torch.__version__),
        "likelihood": type(network.likelihood).__name__,
        "n_draws": str(n_draws),
        "seed": str(seed),
        "quantiles": json.dumps(list(levels) if "quantiles" in expected else []),
        **{name: json.dumps(value) for name, value in (metadata or {}).items()},
    }
    if format == "onnx":
        stored["onnx"] = version("onnx")

    def convert(module: nn.Module, x: Inputs, names: Sequence[str]) -> tuple[bytes, Any]:
        program = programs.exported_program(module, x)
        if format == "torch":
            content = programs.torch_file(program, stored)
            return content, programs.run_torch(content, x)
        content = programs.onnx_file(program, x, names, stored)
        return content, programs.run_onnx(content, x)

    with programs.quiet_exporter():
        try:
            content, outputs = convert(graph, x, list(expected))
        except Exception as error:
            if isinstance(error, ValueError) and str(error).startswith("`"):
                raise
            scaled = network.prepare_inputs(map_arrays(units.scaled_inputs, x))
            found = failing_module(
                network.net, scaled, lambda module, x: convert(module, x, ["output"])
            )
            culprit, cause = found or (f"the likelihood {stored['likelihood']}", error)
            reason = _innermost(cause)
            raise ValueError(
                f"`format` {format!r} cannot hold {culprit}: {type(reason).__name__}: "
                f"{first_line(reason)}"
            ) from error
    _check_outputs(outputs, expected, format)
    with replacing(path) as stream:
        stream.write(content)


def _innermost(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _innermost(error.__cause__)


def _format_of(path: Path, format: Format | None) -> Format:
    known = SUFFIXES.get(path.suffix.lower())
    if format is None:
        if known is None:
            raise ValueError(
                f"`path` must end in .pt2 or .onnx, got {path.name!r}: or pass format='torch' or "
                "format='onnx'."
            )
        return known  # type: ignore[return-value]
    if not is_one_of(format, SUFFIXES.values()):
        raise ValueError(f"`format` must be 'torch' or 'onnx', got {shown(format)}.")
    if known not in (None, format):
        raise ValueError(
            f"`path` ends in {path.suffix}, but `format` is {format!r}: change one of them."
        )
    return format


def _levels(quantiles: ArrayLike) -> tuple[float, ...]:
    try:
        levels = np.asarray(quantiles, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"`quantiles` must hold numbers, got {shown(quantiles)}.") from None
    if levels.ndim != 1 or not bool(((levels > 0) & (levels < 1)).all()):
        raise ValueError(
            f"`quantiles` must be a list of probabilities in (0, 1), got {shown(quantiles)}."
        )
    return tuple(levels.tolist())


def _check_packages(format: Format) -> None:
    number = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if number < MIN_TORCH:
        oldest = ".".join(map(str, MIN_TORCH))
        raise ImportError(f"Export needs torch {oldest} or later, got {torch.__version__}.")
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ImportError(
                    f'ONNX files need {package}: pip install "pyrobbb[onnx]".'
                ) from error


def _example(example: Inputs, units: Units) -> Any:
    """Return several rows in the units of the user."""
    if units.input_scaling is not None:  # beyond the tails, too
        z = np.random.default_rng(0).normal(size=(N_EXAMPLE_ROWS, *units.input_scaling.loc.shape))
        return units.input_scaling.loc + units.input_scaling.scale * torch.as_tensor(2 * z)
    if n_rows(example) > 1:  # rows that interact
        return clone(map_arrays(Tensor.cpu, example))
    return map_arrays(lambda row: row.cpu().repeat(N_EXAMPLE_ROWS, *[1] * (row.dim() - 1)), example)


def _distribution(chain: FittedChain, example: Inputs) -> Any:
    """Return the distribution of y at the example, under some draws."""
    (source,) = sources_of([chain], 2, 0)
    draws = next(iter(source.draws(example)))
    network = chain.network
    output = network.output(draws, example)
    return base_of(distribution_given(network.likelihood, output, network.latents_of(draws)))


def _expected(prediction: Any, levels: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the outputs of a prediction by name, in the order of the file."""
    if hasattr(prediction, "probs"):
        return {name: to_numpy(getattr(prediction, name)) for name in OF_CLASSES}
    expected = {name: to_numpy(getattr(prediction, name)) for name in OF_NUMBERS}
    if levels:
        expected["quantiles"] = to_numpy(prediction.quantile(list(levels)))
    return expected


def _check_outputs(
    outputs: Mapping[str, Tensor], expected: Mapping[str, np.ndarray], format: Format
) -> None:
    """Raise a RuntimeError unless the outputs of a program are those of the prediction."""
    unit = np.abs(expected["sd"]).max() if "sd" in expected else 0.0
    for name, values in expected.items():
        found = outputs[name].numpy()
        size = max(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)), float(unit))
        if name != "label" and not (
            found.shape == values.shape
            and np.allclose(found, values, rtol=TOLERANCE, atol=TOLERANCE * size)
        ):
            raise RuntimeError(
                f"`format` {format!r}: the output {name!r} of the program differs from that of "
                "predict, so it was not written. Please report it, with the network."
            )
