"""How a step is taken: by Pyro's SVI, by the fused loss, or many at once in one compiled call."""

from .base import NonFiniteLossError

__all__ = ["NonFiniteLossError"]
