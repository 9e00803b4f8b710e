"""Learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from .._core.messages import is_one_of, not_one_of

Schedule = Literal["one_cycle", "cosine", "constant"] | Callable[[float], float]


def factor_of(schedule: Schedule) -> Callable[[float], float]:
    """Return the factor on the learning rate as a function of the completed fraction of a fit."""

    def cosine(fraction: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * fraction))

    def one_cycle(fraction: float) -> float:
        rise = 0.3
        if fraction < rise:
            return 0.04 + 0.96 * (1 - cosine(fraction / rise))
        return cosine((fraction - rise) / (1 - rise))

    named: dict[str, Callable[[float], float]] = {
        "one_cycle": one_cycle,
        "cosine": cosine,
        "constant": lambda fraction: 1.0,
    }
    if callable(schedule):
        return schedule
    if not is_one_of(schedule, named):
        raise ValueError(not_one_of("schedule", schedule, named, or_else=", or a callable"))
    return named[schedule]
