"""Checks of an estimator's stored parameters: what a file holds is checked like an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from .._core.arrays import check_count, check_number, check_positive
from ..model.mlp import ACTIVATIONS
from ..prediction import Calibration
from ..training.config import EngineName
from .parameters import Columns, check_ard, check_flag, check_kl_weight

MAX_DRAWS = 10**6
MAX_LABEL_BYTES = 2**26
"""Memory of the class labels: their dtype is read from the file."""


def check_stored_parameters(params: Mapping[str, Any]) -> None:
    """Raise a TypeError or ValueError that names the first parameter that is invalid."""
    for name, value in params.items():
        if name in _CHECKS:
            _CHECKS[name](name, value)


def _check_count_or_none(name: str, value: Any) -> None:
    if value is not None:
        check_count(name, value)


def _check_count_or_auto(name: str, value: Any) -> None:
    if value != "auto":
        check_count(name, value)


def _check_draws(name: str, value: Any) -> None:
    check_count(name, value)
    if value > MAX_DRAWS:
        raise ValueError(f"`{name}` must be at most {MAX_DRAWS:,}, got {value}.")


def _check_hidden(name: str, value: Any) -> None:
    if isinstance(value, str):
        _one_of("auto")(name, value)
        return
    if not isinstance(value, list | tuple):
        raise TypeError(f"`{name}` must be 'auto' or a list of sizes, got {value!r:.40}.")
    for size in value:
        check_count(name, size)


def _check_seed(name: str, value: Any) -> None:
    if value is not None:
        check_count(name, value, least=0)


def _one_of(*choices: str) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if value not in choices:
            raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r:.40}.")

    return check


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("batch_size", "patience"), check_count),
    **dict.fromkeys(("early_stopping", "warm_start", "verbose"), check_flag),
    **dict.fromkeys(("calibration", "validation_fraction"), check_number),
    "activation": _one_of(*ACTIVATIONS),
    "ard": check_ard,
    "columns": _one_of(*get_args(Columns)),
    "engine": _one_of(*get_args(EngineName)),
    "epochs": _check_count_or_none,
    "hidden": _check_hidden,
    "kl_weight": check_kl_weight,
    "lr": check_positive,
    "n_draws": _check_draws,
    "random_state": _check_seed,
    "restarts": _check_count_or_auto,
}


def calibration_from_json(stored: Mapping[str, Any] | None) -> Calibration | None:
    """Return the calibration from the plain data that `calibration_to_json` returned, or raise."""
    return None if stored is None else Calibration(**stored)


def labels_from_json(stored: Mapping[str, Any]) -> np.ndarray:
    """Return the class labels from the plain data that `labels_to_json` returned.

    Raises
    ------
    ValueError
        If they are not different labels of the stored dtype.
    """
    values, dtype = stored["values"], np.dtype(stored["dtype"])
    if not isinstance(values, list) or len(values) < 2:
        raise ValueError(f"its class labels must be a list of at least 2, got {values!r:.40}.")
    if dtype.kind not in "biufUO" or not 0 < dtype.itemsize * len(values) <= MAX_LABEL_BYTES:
        raise ValueError(f"its class labels have the dtype {dtype.str}, which is not stored.")
    labels = np.array(values, dtype=dtype)
    if labels.ndim != 1 or labels.tolist() != values or len(set(values)) < len(values):
        raise ValueError(f"its class labels must be different values of dtype {dtype.str}.")
    return labels
