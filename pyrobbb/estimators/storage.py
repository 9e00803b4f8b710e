"""Estimators on disk: the folder of the posterior, with the estimator's data as extra data."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import storage
from .._core.arrays import check_count
from ..columns import ColumnEncoder
from ..model.mlp import mlp_spec
from ..posterior.posterior import Posterior
from ..prediction import Calibration, Standardizer
from ..storage.specs import PARTS, build, custom_names, describe
from .inputs import n_inputs
from .loss_curves import LossCurve
from .parameters import whole_numbers
from .search import search_from_json, search_to_json
from .stored_parameters import check_stored_parameters
from .target_units import LogStandardizer

logger = logging.getLogger(__name__)

SCALINGS = ("input_scaling_", "target_scaling_")


def write(path: str | os.PathLike[str], estimator: Any, extra: Mapping[str, Any]) -> None:
    """Write a fitted estimator.

    Parameters
    ----------
    path : path-like
    estimator : BBBRegressor or BBBClassifier
    extra : mapping
        Plain data to store with it.

    Raises
    ------
    TypeError
        If the prior or the likelihood is a custom callable: code is not stored.
    """
    params = whole_numbers(estimator.get_params(deep=False))
    if not isinstance(params["hidden"], str):
        params["hidden"] = list(params["hidden"])
    tensors: dict[str, Tensor] = {}
    for name in PARTS:
        if name in params and not isinstance(params[name], str):
            params[name] = describe(name, params[name], tensors)
            if any(custom_names(params[name])):
                raise TypeError(
                    f"`{name}` must be one of pyrobbb's to be stored, got a custom callable: "
                    "pickle the estimator, or save `posterior_` alone."
                )
    params |= {"checkpoint": None, "device": None}  # these belong to that fit on that machine
    seed = params["random_state"]
    if not isinstance(seed, int | np.integer | None):
        logger.info("`random_state` is not an integer: the stored estimator has None instead.")
        params["random_state"] = None
    check_stored_parameters(params)
    description: dict[str, Any] = {
        "class": type(estimator).__name__,
        "params": {n: v.item() if isinstance(v, np.generic) else v for n, v in params.items()},
        "seed": estimator.seed_,
        "n_features": estimator.n_features_in_,
        "hidden": list(estimator.hidden_),
        "search": search_to_json(estimator.search_),
        "first_fit": [curve.to_json() for curve in estimator.first_fit_],
    }
    if estimator.columns_ is not None:
        description["columns"] = estimator.columns_.to_dict()
    if hasattr(estimator, "feature_names_in_"):
        description["feature_names"] = estimator.feature_names_in_.tolist()
    description |= estimator._description()
    for name in SCALINGS:
        scaling = getattr(estimator, name, None)
        if scaling is not None:
            tensors |= {f"{name}.{part}": value for part, value in vars(scaling).items()}
    posterior = estimator.posterior_
    storage.write(
        path,
        posterior.chains,
        frozen=True,
        extra={**extra, "estimator": description},
        tensors=tensors,
    )


def read(path: str | os.PathLike[str], kinds: Sequence[type[Any]]) -> tuple[Any, dict[str, Any]]:
    """Read an estimator, and the plain data stored with it.

    Parameters
    ----------
    path : path-like
    kinds : sequence of class
        Classes of estimators to accept.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder does not exist, is damaged, or holds no estimator of these classes.
    """
    extra, tensors = storage.read_extra(path)
    description = extra.pop("estimator", None)
    if description is None:
        raise ValueError(
            f"`path` {os.fspath(path)!r} holds a posterior but no estimator: read it with "
            "Posterior.load."
        )
    posterior = Posterior.load(path)
    try:
        name = description["class"]
        kind = next((kind for kind in kinds if kind.__name__ == name), None)
        estimator = None if kind is None else _rebuild(kind, description, tensors, posterior)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"`path` {os.fspath(path)!r} is damaged: its estimator cannot be rebuilt "
            f"({type(error).__name__}: {error})."
        ) from error
    if estimator is None:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"`path` {os.fspath(path)!r} must hold a {expected}, got a {name}.")
    return estimator, extra


def _rebuild(
    kind: type[Any],
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    posterior: Posterior,
) -> Any:
    params = dict(description["params"])
    check_stored_parameters(params)
    if isinstance(params["hidden"], list):
        params["hidden"] = tuple(params["hidden"])
    for name in PARTS:
        if isinstance(params.get(name), dict):
            params[name] = build(name, params[name], tensors)
    estimator = kind(**params)
    n_features, hidden = description["n_features"], description["hidden"]
    check_count("n_features", n_features)
    check_count("seed", description["seed"], least=0)
    for size in (*hidden, *description.get("y_shape", ())):
        check_count("hidden` and `y_shape", size)
    estimator.columns_ = None
    if (columns := description.get("columns")) is not None:
        estimator.columns_ = ColumnEncoder.from_dict(columns)
        _check(len(estimator.columns_.names) == n_features, "as many columns as features")
    estimator.n_features_in_ = n_features
    estimator.seed_ = description["seed"]
    estimator.hidden_ = tuple(hidden)
    if "feature_names" in description:
        names = description["feature_names"]
        _check(all(isinstance(name, str) for name in names), "strings as feature names")
        _check(len(names) == n_features, "as many feature names as features")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    for name in SCALINGS:
        if f"{name}.loc" in tensors:
            scaling_of = LogStandardizer if f"{name}.lower" in tensors else Standardizer
            parts = [field.name for field in dataclasses.fields(scaling_of)]
            scaling = scaling_of(**{part: tensors[f"{name}.{part}"] for part in parts})
            _check_scaling(name, scaling)
            setattr(estimator, name, scaling)
    shape = (n_inputs(estimator),)
    _check(estimator.input_scaling_.loc.shape == shape, "a scaling for each feature")
    for chain in posterior.chains:
        _check(chain.example.shape[1:] == shape, "a network with an input for each feature")
    estimator.posterior_ = posterior
    # A folder holds one likelihood, which all chains share.
    estimator.likelihood_ = posterior.chains[0].network.likelihood
    estimator.search_ = search_from_json(description.get("search"))
    estimator.first_fit_ = tuple(map(LossCurve.from_json, description.get("first_fit", ())))
    estimator._restore(description)
    spec = mlp_spec(posterior.chains[0].network.net)
    n_outputs = estimator._n_outputs(estimator.likelihood_)
    _check(
        spec is None or (spec.hidden, spec.n_out) == (estimator.hidden_, n_outputs),
        "a network of its hidden sizes and with the outputs that its target needs",
    )
    estimator.restarts_ = len(posterior.chains)
    estimator.ard_ = spec is not None and spec.input_scale
    agrees = isinstance(estimator.ard, str) or bool(estimator.ard) == estimator.ard_
    _check(agrees, "the network of its `ard`")
    return estimator


def _check_scaling(name: str, scaling: Standardizer) -> None:
    parts = list(vars(scaling).values())
    _check(all(t.dtype == torch.float64 for t in parts), f"float64 numbers in {name}")
    _check(
        all(t.shape == scaling.loc.shape for t in parts),
        f"a location and a scale for each column in {name}",
    )
    _check(all(bool(t.isfinite().all()) for t in parts), f"finite numbers in {name}")
    _check(bool((scaling.scale > 0).all()), f"positive scales in {name}")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"it does not have {what}")


def calibration_to_json(calibration: Calibration | None) -> dict[str, Any] | None:
    """Return a calibration as plain data."""
    if calibration is None:
        return None
    return {"share": calibration.share.tolist(), "level": calibration.level.tolist()}


def labels_to_json(labels: np.ndarray) -> dict[str, Any]:
    """Return class labels as plain data."""
    if labels.dtype.kind not in "biufUO" or not all(
        isinstance(label, str | int | float | bool) for label in labels.tolist()
    ):
        raise TypeError(
            f"Class labels must be strings or numbers to be stored, got dtype {labels.dtype}: "
            "convert them, or pickle the estimator."
        )
    return {
        "dtype": labels.dtype.str if labels.dtype.kind != "O" else "O",
        "values": labels.tolist(),
    }
