"""scikit-learn estimators on disk: the folder of their posterior, with what they are beside it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .. import storage
from ..posterior.posterior import Posterior
from ..prediction.scaling import Standardizer
from ..storage.specs import build, custom_names, describe

logger = logging.getLogger(__name__)

PARTS = ("prior", "likelihood")
SCALINGS = ("input_scaling_", "target_scaling_")


def write(path: str | os.PathLike[str], estimator: Any, extra: Mapping[str, Any]) -> None:
    """Write a fitted estimator.

    Parameters
    ----------
    path : path-like
    estimator : BBBRegressor or BBBClassifier
    extra : mapping
        Plain data to store beside it.

    Raises
    ------
    TypeError
        If the prior or the likelihood is a callable of your own: code is not stored.
    """
    params = dict(estimator.get_params(deep=False))
    if not isinstance(params["hidden"], str):
        params["hidden"] = [int(n) for n in params["hidden"]]
    tensors: dict[str, Tensor] = {}
    for name in PARTS:
        if name in params and not isinstance(params[name], str):
            params[name] = describe(name, params[name], tensors)
            if any(custom_names(params[name])):
                raise TypeError(
                    f"`{name}` is a callable of your own, and code is not stored: pickle the "
                    "estimator, or save posterior_ alone."
                )
    params |= {"checkpoint": None, "device": None}  # of the fit that is over, and of this machine
    seed = params["random_state"]
    if not isinstance(seed, int | np.integer | None):
        logger.info("`random_state` is no number: the stored estimator has None in its place.")
        params["random_state"] = None
    description: dict[str, Any] = {
        "class": type(estimator).__name__,
        "params": {n: v.item() if isinstance(v, np.generic) else v for n, v in params.items()},
        "seed": estimator.seed_,
        "n_features": estimator.n_features_in_,
        "hidden": list(estimator.hidden_),
    }
    if hasattr(estimator, "feature_names_in_"):
        description["feature_names"] = estimator.feature_names_in_.tolist()
    description |= estimator.described()
    for name in SCALINGS:
        scaling = getattr(estimator, name, None)
        if scaling is not None:
            tensors |= {f"{name}.loc": scaling.loc, f"{name}.scale": scaling.scale}
    posterior = estimator.posterior_
    storage.write(
        path, posterior.chains, extra={**extra, "estimator": description}, tensors=tensors
    )


def read(
    path: str | os.PathLike[str], kinds: Mapping[str, type[Any]]
) -> tuple[Any, dict[str, Any]]:
    """Read an estimator, and the plain data stored beside it.

    Parameters
    ----------
    path : path-like
    kinds : mapping of str to class
        The estimators there are, by name.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not there, is damaged, or holds no estimator.
    """
    extra, tensors = storage.read_extra(path)
    description = extra.pop("estimator", None)
    if description is None:
        raise ValueError(
            f"`path` {os.fspath(path)!r} holds a posterior but no estimator: read it by "
            "Posterior.load."
        )
    posterior = Posterior.load(path)
    try:
        estimator = _rebuilt(description, tensors, kinds, posterior)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`path` {os.fspath(path)!r} is damaged: its estimator cannot be rebuilt "
            f"({type(error).__name__}: {error})."
        ) from error
    return estimator, extra


def _rebuilt(
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    kinds: Mapping[str, type[Any]],
    posterior: Posterior,
) -> Any:
    kind = kinds[description["class"]]
    params = dict(description["params"])
    if isinstance(params["hidden"], list):
        params["hidden"] = tuple(params["hidden"])
    for name in PARTS:
        if isinstance(params.get(name), dict):
            params[name] = build(name, params[name], tensors)
    estimator = kind(**params)
    n_features = description["n_features"]
    estimator.n_features_in_ = n_features
    estimator.seed_ = int(description["seed"])
    estimator.hidden_ = tuple(int(n) for n in description["hidden"])
    if "feature_names" in description:
        names = description["feature_names"]
        _check(len(names) == n_features, "as many feature names as features")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    for name in SCALINGS:
        if f"{name}.loc" in tensors:
            scaling = Standardizer(tensors[f"{name}.loc"], tensors[f"{name}.scale"])
            _check(bool((scaling.scale > 0).all()), f"positive scales in {name}")
            setattr(estimator, name, scaling)
    _check(estimator.input_scaling_.loc.shape == (n_features,), "a scaling for each feature")
    _check(
        posterior.chains[0].example.shape[1:] == (n_features,),
        "a network of as many inputs as features",
    )
    estimator.restore(description, posterior)
    return estimator


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"it has not {what}")


def labels_to_json(labels: np.ndarray) -> dict[str, Any]:
    """Give class labels as plain data."""
    if labels.dtype.kind not in "biufUO" or not all(
        isinstance(label, str | int | float | bool) for label in labels.tolist()
    ):
        raise TypeError(
            f"Class labels of dtype {labels.dtype} are not stored: make them strings or numbers, "
            "or pickle the estimator."
        )
    return {
        "dtype": labels.dtype.str if labels.dtype.kind != "O" else "O",
        "values": labels.tolist(),
    }


def labels_from_json(stored: Mapping[str, Any]) -> np.ndarray:
    """Give class labels back."""
    dtype = np.dtype(stored["dtype"])
    _check(dtype.kind in "biufUO", "class labels of a kind that is stored")
    return np.array(stored["values"], dtype=dtype)
