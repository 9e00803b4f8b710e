"""The objective: the negative ELBO and its gradients, without effect handling."""

from .fused_elbo import FusedELBO
from .fused_loss import CannotFuseError

__all__ = ["CannotFuseError", "FusedELBO"]
