"""The objective: the negative ELBO and its gradients, without effect handling."""

from .fused_elbo import CannotFuseError, FusedELBO

__all__ = ["CannotFuseError", "FusedELBO"]
