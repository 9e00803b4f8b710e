"""Exact and variational inference for the last linear layer of a network, in closed form."""

from .chains import condition, fit_last_layer, is_last_layer

__all__ = ["condition", "fit_last_layer", "is_last_layer"]
