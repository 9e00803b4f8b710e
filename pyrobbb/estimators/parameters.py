"""The parameters of an estimator, checked before its first fit begins."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from sklearn.utils import check_random_state

from .._core.arrays import as_count, check_number, check_positive
from .._core.messages import is_one_of, not_one_of, shown
from ..model.mlp import as_layers
from ..model.names import PRIORS, REGRESSIONS

RandomStateLike: TypeAlias = int | np.random.RandomState | np.random.Generator | None
Columns: TypeAlias = Literal["auto", "passthrough"]
FLAGS = ("early_stopping", "warm_start", "verbose")
COUNTS = ("batch_size", "restarts", "n_draws", "epochs", "patience")
INSTEAD_OF_COUNTS = {("epochs", None), ("patience", None), ("restarts", "auto")}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise a TypeError or ValueError that names the first invalid parameter.

    `activation`, `engine` and `device` are checked by the network and by `pyrobbb.fit`.

    Parameters
    ----------
    parameters : mapping of str to object
        All parameters of the constructor.
    """
    _check_hidden(parameters["hidden"])
    _check_named("prior", parameters["prior"], PRIORS)
    if "likelihood" in parameters:
        _check_named("likelihood", parameters["likelihood"], [*REGRESSIONS, "auto"])
    if not is_one_of(parameters["columns"], get_args(Columns)):
        raise ValueError(not_one_of("columns", parameters["columns"], get_args(Columns)))
    check_ard("ard", parameters["ard"])
    for name in FLAGS:
        check_flag(name, parameters[name])
    whole_numbers(parameters)
    check_positive("lr", parameters["lr"])
    check_kl_weight("kl_weight", parameters["kl_weight"])
    fraction = parameters["validation_fraction"]
    check_number("validation_fraction", fraction)
    if not 0 < fraction < 1:
        raise ValueError(f"`validation_fraction` must lie in (0, 1), got {fraction}.")
    fraction = parameters["calibration"]
    check_number("calibration", fraction)
    if not 0 <= fraction < 1:
        raise ValueError(
            f"`calibration` must be a fraction of the rows in [0, 1), 0 for none, got {fraction}."
        )
    checkpoint = parameters["checkpoint"]
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"`checkpoint` must be a path or None, got {_short(checkpoint)}.")


def whole_numbers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with integers where integers are meant, or raise if one is not whole.

    R passes floats. An estimator keeps its parameters as they are given, as scikit-learn requires.
    """
    whole = dict(parameters)
    for name in COUNTS:
        value = whole[name]
        if not (isinstance(value, str | None) and (name, value) in INSTEAD_OF_COUNTS):
            whole[name] = as_count(name, value)
    if not isinstance(whole["hidden"], str):
        whole["hidden"] = as_layers("hidden", whole["hidden"])
    whole["random_state"] = _whole_seed(whole["random_state"])
    return whole


def _whole_seed(random_state: Any) -> Any:
    is_whole = isinstance(random_state, float) and random_state.is_integer()
    return int(random_state) if is_whole else random_state


def check_flag(name: str, value: Any, expected: str = "True or False") -> None:
    """Raise unless a value is True or False, or an integer, which R and NumPy may pass."""
    if not isinstance(value, bool | np.bool_ | numbers.Integral):
        raise TypeError(f"`{name}` must be {expected}, got {_short(value)}.")


def check_ard(name: str, value: Any) -> None:
    """Raise unless a value is True, False or "auto"."""
    if not is_one_of(value, ("auto",)):
        check_flag(name, value, "'auto', True or False")


def check_kl_weight(name: str, value: Any) -> None:
    """Raise unless a value is a positive number or "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"`{name}` must be 'auto' or a positive number, got {shown(value)}.")
    else:
        check_positive(name, value)


def draw_seed(random_state: Any) -> int:
    """Return a seed below 2**31, the next that a `random_state` draws.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
    """
    random_state = _whole_seed(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    try:
        return int(check_random_state(random_state).randint(2**31))
    except ValueError:
        raise ValueError(
            "`random_state` must be None, an integer in [0, 2**32), a RandomState or a Generator, "
            f"got {_short(random_state)}."
        ) from None


def _check_hidden(hidden: Any) -> None:
    if isinstance(hidden, str):
        is_valid = hidden == "auto"
    else:
        is_number = isinstance(hidden, numbers.Real) and not isinstance(hidden, bool)
        is_valid = is_number or isinstance(hidden, Sequence) or np.ndim(hidden) == 1
    if not is_valid:
        raise (ValueError if isinstance(hidden, str) else TypeError)(
            f"`hidden` must be 'auto' or a sequence such as (50, 50), got {_short(hidden)}."
        )


def _check_named(argument: str, value: Any, names: Any) -> None:
    """Raise unless a value is one of some names, or a callable."""
    if isinstance(value, str):
        if value not in names:
            raise ValueError(not_one_of(argument, value, names))
    elif not callable(value):
        raise TypeError(
            f"`{argument}` must be one of {', '.join(names)}, or a callable, got {_short(value)}."
        )


def _short(value: Any) -> str:
    """Return a number or string as it is, and only the type of anything else."""
    if value is None or isinstance(value, str | numbers.Number):
        return repr(value)
    return f"a {type(value).__name__}"
