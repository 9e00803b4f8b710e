"""Time many short calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

N_WARM_UP = 20


def block_seconds(
    call: Callable[[], object], *, budget: float, n_blocks: int = 20, n_warm_up: int = N_WARM_UP
) -> list[float]:
    """Time a call in blocks of so many that all blocks together take about the budget.

    Parameters
    ----------
    call : callable
    budget : float
        Seconds.
    n_blocks : int
        The warm-up before them takes `n_warm_up` calls, and at least a fifth of the budget.

    Returns
    -------
    list of float
        Mean seconds a call, of each block.
    """
    n_done, started = 0, time.perf_counter()
    while n_done < n_warm_up or time.perf_counter() - started < 0.2 * budget:
        call()
        n_done += 1
    few = max(1, n_done // 10)  # the last calls of the warm-up: the first may have compiled
    started = time.perf_counter()
    for _ in range(few):
        call()
    each = (time.perf_counter() - started) / few
    n_calls = max(1, math.ceil(budget / n_blocks / each))
    seconds = []
    for _ in range(n_blocks):
        started = time.perf_counter()
        for _ in range(n_calls):
            call()
        seconds.append((time.perf_counter() - started) / n_calls)
    return seconds
