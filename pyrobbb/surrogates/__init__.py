"""Posteriors as surrogate models of BoTorch, for Bayesian optimisation."""

from .building import to_botorch

__all__ = ["to_botorch"]
