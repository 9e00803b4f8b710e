"""Posteriors as ArviZ reads them: `to_arviz` for ours, `from_pyro` for any of Pyro's."""

from .from_pyro import from_pyro
from .to_arviz import to_arviz

__all__ = ["from_pyro", "to_arviz"]
