"""Conversion to ArviZ: `to_arviz` for a fitted posterior, `from_pyro` for results of Pyro."""

from .from_pyro import from_pyro
from .to_arviz import to_arviz

__all__ = ["from_pyro", "to_arviz"]
