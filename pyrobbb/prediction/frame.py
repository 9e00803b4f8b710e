"""A prediction as a data frame, one row for each row that was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arrays import to_numpy

if TYPE_CHECKING:
    import pandas as pd


def index_of(x: Any) -> Any:
    """Return the index of a pandas frame or series; None for other inputs."""
    return x.index if hasattr(x, "iloc") and hasattr(x, "index") else None


def make_frame(columns: Mapping[str, Any], index: Any) -> pd.DataFrame:
    """Return a DataFrame of quantities of shape (n, ...).

    Those with further dimensions have a column for each element, such as ``mean_0``.
    """
    import pandas as pd

    flat = {}
    for name, values in columns.items():
        array = to_numpy(values)
        for place in np.ndindex(array.shape[1:]):
            flat["_".join([name, *map(str, place)])] = array[(slice(None), *place)]
    return pd.DataFrame(flat, index=index)


def quantile_name(level: float) -> str:
    """Return the name of the column of a quantile, such as ``q05`` or ``q97.5``."""
    whole, _, decimals = f"{100 * level:.10g}".partition(".")
    return f"q{whole:0>2}" + (f".{decimals}" if decimals else "")


def class_names(classes: Sequence[Any] | None, n: int) -> list[str]:
    """Return the names of the columns of the probabilities of classes, such as ``p_setosa``."""
    return [f"p_{label}" for label in (range(n) if classes is None else classes)]
