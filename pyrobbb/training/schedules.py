"""How the learning rate goes over a fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Schedule = Literal["one_cycle", "cosine", "constant"] | Callable[[float], float]


def factor_of(schedule: Schedule) -> Callable[[float], float]:
    """Give the factor on the learning rate as a function of the part of the fit that is done."""

    def cosine(part: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * part))

    def one_cycle(part: float) -> float:
        rise = 0.3
        if part < rise:
            return 0.04 + 0.96 * (1 - cosine(part / rise))
        return cosine((part - rise) / (1 - rise))

    named: dict[str, Callable[[float], float]] = {
        "one_cycle": one_cycle,
        "cosine": cosine,
        "constant": lambda part: 1.0,
    }
    if callable(schedule):
        return schedule
    if schedule not in named:
        raise ValueError(
            f"`schedule` must be one of {', '.join(named)}, or a callable, got {schedule!r}."
        )
    return named[schedule]
