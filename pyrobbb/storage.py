"""A posterior on disk: a folder of a safetensors and a JSON file. Loading runs no code from it."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoNormal
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import likelihoods, priors
from .architectures import MLPSpec, mlp, mlp_spec
from .guides import MeanFieldGuide, auto_normal
from .history import History
from .network import BayesianNetwork
from .randomness import seeded

FORMAT = 1
GUIDES: dict[str, Callable[..., Any]] = {"mean_field": MeanFieldGuide, "auto_normal": auto_normal}


Parts = tuple[BayesianNetwork, Callable[..., Any], History, Tensor, dict[str, Any]]
"""Network, guide, history, example and settings of a fit."""


def write(path: str | os.PathLike[str], chains: Sequence[Parts]) -> None:
    """Write a folder: it appears when it is complete, and an older one goes only then.

    Several chains have a folder each within it.

    Raises
    ------
    TypeError
        If the guide is neither a `MeanFieldGuide` nor an `AutoNormal`.
    FileExistsError
        If the path is there and is not a folder written by this function.
    """
    target = Path(path)
    if target.exists() and not (target / "posterior.json").is_file():
        raise FileExistsError(f"`path` {str(target)!r} exists and holds no posterior: remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch, old = (target.parent / f".{target.name}-{secrets.token_hex(8)}" for _ in range(2))
    scratch.mkdir()
    try:
        if len(chains) == 1:
            _write_files(scratch, *chains[0])
        else:
            for i, parts in enumerate(chains):
                (scratch / f"chain-{i}").mkdir()
                _write_files(scratch / f"chain-{i}", *parts)
            _write_header(scratch, {"format": FORMAT, "chains": len(chains)})
        if target.exists():
            target.rename(old)
        scratch.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _write_files(
    folder: Path,
    network: BayesianNetwork,
    guide: Callable[..., Any],
    history: History,
    example: Tensor,
    settings: Mapping[str, Any],
) -> None:
    kind = "auto_normal" if isinstance(guide, AutoNormal) else "mean_field"
    if not isinstance(guide, AutoNormal | MeanFieldGuide):
        raise TypeError(
            f"A guide of type {type(guide).__name__} cannot be saved: only MeanFieldGuide and "
            "auto_normal can. Save its state_dict() yourself."
        )
    spec = mlp_spec(network.net)
    header = {
        "format": FORMAT,
        "versions": {name: version(name) for name in ("pyrobbb", "torch", "pyro-ppl")},
        "net": None if spec is None else dataclasses.asdict(spec),
        "prior": describe(network.prior),
        "likelihood": describe(network.likelihood),
        "guide": kind,
        "settings": dict(settings),
    }
    tensors = {f"net.{n}": t for n, t in network.net.state_dict().items()}
    tensors |= {f"guide.{n}": t for n, t in guide.state_dict().items()}
    fields = dataclasses.fields(history)
    tensors |= {f"history.{f.name}": torch.as_tensor(getattr(history, f.name)) for f in fields}
    tensors["example"] = example
    copies = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    save_file(copies, folder / "posterior.safetensors")
    _write_header(folder, header)


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    (folder / "posterior.json").write_text(json.dumps(header, indent=2), encoding="utf-8")


def read(path: str | os.PathLike[str], network: BayesianNetwork | None) -> list[Parts]:
    """Read what `write` wrote: network, guide, history, example and settings of each chain.

    Parameters
    ----------
    path : path-like
    network : BayesianNetwork, optional
        Needed where the module is not a plain `mlp`, or the prior or the likelihood is a callable
        of your own: code is not stored. It is filled with the stored values.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not there, is damaged, or does not fit `network`.
    """
    folder = Path(path)
    header = _read_header(folder)
    n_chains = header.get("chains", 1)
    if n_chains == 1:
        return [_read_chain(folder, header, network)]
    chains = []
    for i in range(n_chains):
        own = network if i == 0 else copy.deepcopy(network)
        chains.append(_read_chain(folder / f"chain-{i}", _read_header(folder / f"chain-{i}"), own))
    return chains


def _read_header(folder: Path) -> dict[str, Any]:
    if not (folder / "posterior.json").is_file():
        raise FileNotFoundError(f"`path` {str(folder)!r} holds no posterior (no posterior.json).")
    try:
        header = json.loads((folder / "posterior.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`path` {str(folder)!r} is damaged: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(
            f"`path` {str(folder)!r} has format {header.get('format')!r}, this version of pyrobbb "
            f"reads {FORMAT}."
        )
    return header


def _read_chain(folder: Path, header: Mapping[str, Any], network: BayesianNetwork | None) -> Parts:
    try:
        tensors = load_file(folder / "posterior.safetensors")
    except Exception as error:  # the reader has errors of its own for a damaged file
        raise ValueError(f"`path` {str(folder)!r} is damaged: {error}") from error
    network = _rebuild(header) if network is None else _check_same(network, header)
    _fill(network.net, _under(tensors, "net."), "network")
    network.eval()  # or building the guide would move the buffers of batch norm
    guide = GUIDES[header["guide"]](network)
    example = tensors["example"]
    if isinstance(guide, AutoNormal):  # it makes its parameters when it first runs
        with seeded(0):
            guide(example)
    _fill(guide, _under(tensors, "guide."), "guide")
    history = History(**{n: np.asarray(t) for n, t in _under(tensors, "history.").items()})
    return network, guide, history, example, header["settings"]


def describe(part: Any) -> dict[str, Any]:
    """Describe a prior or likelihood as plain data; a callable of one's own by its name only."""
    if part is None:
        return {"type": "None"}
    if isinstance(part, priors.ByName):
        rules = {pattern: describe(prior) for pattern, prior in part.patterns.items()}
        return {"type": "ByName", "patterns": rules, "default": describe(part.default)}
    if type(part).__module__ in (priors.__name__, likelihoods.__name__):
        values = dataclasses.asdict(part)
        return {"type": type(part).__name__, **json.loads(json.dumps(values, default=float))}
    return {"type": "custom", "name": getattr(part, "__qualname__", type(part).__qualname__)}


def _build(description: Mapping[str, Any], module: Any) -> Any:
    values = dict(description)
    kind = values.pop("type")
    if kind == "None":
        return None
    if kind == "ByName":
        values["patterns"] = {p: _build(d, module) for p, d in values["patterns"].items()}
        values["default"] = _build(values["default"], module)
    if kind not in module.__all__:
        raise ValueError(
            f"The stored network has the {module.__name__.split('.')[-1][:-1]} "
            f"{values.get('name', kind)!r}, which is not stored: pass `network`."
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return getattr(module, kind)(**values)


def _rebuild(header: Mapping[str, Any]) -> BayesianNetwork:
    if header["net"] is None:
        raise ValueError(
            "The stored module is no plain `mlp`, and code is not stored: pass `network`."
        )
    spec = MLPSpec(**header["net"])
    net = mlp(spec.n_in, spec.hidden, spec.n_out, spec.activation)
    prior, likelihood = _build(header["prior"], priors), _build(header["likelihood"], likelihoods)
    return BayesianNetwork(net, prior, likelihood)


def _check_same(network: BayesianNetwork, header: Mapping[str, Any]) -> BayesianNetwork:
    for part in ("prior", "likelihood"):
        given, stored = describe(getattr(network, part)), header[part]
        if given != stored:
            raise ValueError(f"`network` has the {part} {given}, the stored posterior {stored}.")
    return network


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    own = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    stored = {name: tuple(t.shape) for name, t in state.items()}
    if own != stored:
        name = sorted(set(own.items()) ^ set(stored.items()))[0][0]
        raise ValueError(
            f"The stored {what} does not fit: {name!r} has shape {stored.get(name, 'none')} there "
            f"and {own.get(name, 'none')} here."
        )
    module.to(next(t for t in state.values() if t.is_floating_point()).dtype)
    module.load_state_dict(dict(state))
