"""Calls of `pyrobbb.plots` by the objects that are plotted.

The package of the plots depends on what is plotted, so that the objects cannot import it. It is
found by name when a plot is drawn, as pandas finds its plotting backend; matplotlib is imported no
earlier.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def plot_function(name: str) -> Callable[..., Any]:
    """Return a function of `pyrobbb.plots`, such as ``"plot_band"``."""
    function: Callable[..., Any] = getattr(importlib.import_module("pyrobbb.plots"), name)
    return function


class PlotAccessor:
    """The plots of an object, as methods: ``posterior.plot.history()`` is `plot_history`.

    Parameters
    ----------
    owner : object
        The first argument of the functions.
    names : tuple of str
        Names of functions of `pyrobbb.plots` without ``plot_``.
    """

    def __init__(self, owner: Any, names: tuple[str, ...]) -> None:
        self._owner, self._names = owner, names

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(f"There is no plot {name!r}: choose {', '.join(self._names)}.")

        def plot(*args: Any, **options: Any) -> Any:
            return plot_function(f"plot_{name}")(self._owner, *args, **options)

        plot.__name__ = name
        plot.__doc__ = f"See `pyrobbb.plots.plot_{name}`, whose first argument is this object."
        return plot

    def __dir__(self) -> list[str]:
        return list(self._names)

    def __repr__(self) -> str:
        return f"<plots: {', '.join(self._names)}>"
