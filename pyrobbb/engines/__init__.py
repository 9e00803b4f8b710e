"""How a training step is taken: by Pyro's SVI, by the fused loss, or many per compiled call."""

from .base import NonFiniteLossError

__all__ = ["NonFiniteLossError"]
