"""Estimators as files that predict without pyrobbb, and as models of BoTorch, in their units."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils.validation import check_is_fitted

from ..export import Format, Units, export_chains
from ..surrogates import to_botorch
from .preparation import CLIP_SD
from .target_units import is_log


def write(
    path: str | os.PathLike[str],
    estimator: Any,
    format: Format | None,
    n_draws: int,
    quantiles: Sequence[float],
    metadata: Mapping[str, Any],
) -> None:
    """Write a fitted estimator; see `BBBEstimator.export`."""
    stored: dict[str, Any] = {"estimator": type(estimator).__name__}
    if estimator.columns_ is not None:
        stored["features"] = estimator.columns_.inputs
    elif hasattr(estimator, "feature_names_in_"):
        stored["features"] = estimator.feature_names_in_.tolist()
    if not is_regressor(estimator):
        stored["classes"] = estimator.classes_.tolist()

    def predict(x: np.ndarray) -> Any:
        return estimator._predict_inputs(x, n_draws, estimator.seed_)

    export_chains(
        estimator.posterior_.chains,
        path,
        format,
        n_draws=n_draws,
        seed=estimator.seed_,
        quantiles=quantiles,
        units=units_of(estimator),
        predict=predict,
        metadata={**stored, **metadata},
    )


def botorch_model(
    estimator: Any, n_draws: int | None, seed: int | None, transforms: Mapping[str, Any]
) -> Any:
    """Return a fitted regressor as a model of BoTorch; see `BBBRegressor.to_botorch`."""
    check_is_fitted(estimator)
    return to_botorch(
        estimator.posterior_,
        estimator.n_draws if n_draws is None else n_draws,
        estimator.seed_ if seed is None else seed,
        units=units_of(estimator),
        **transforms,
    )


def units_of(estimator: Any) -> Units:
    """Return what a fitted estimator does before and after its network."""
    inputs: dict[str, Any] = {"input_scaling": estimator.input_scaling_, "clip_sd": CLIP_SD}
    if not is_regressor(estimator):
        return Units(**inputs, temperature=estimator.temperature_)
    target: dict[str, Any] = {}
    if (scaling := estimator.target_scaling_) is not None:
        target = {"loc": scaling.loc, "scale": scaling.scale}
        if is_log(scaling):
            target["log_bounds"] = (scaling.lower, scaling.upper)
    return Units(
        **inputs,
        **target,
        calibration=estimator.calibration_,
        is_column=not estimator._y_shape,
    )
