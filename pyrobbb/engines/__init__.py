"""Engines that take training steps: Pyro's SVI, the fused loss, or many steps per compiled call."""

from .base import NonFiniteLossError

__all__ = ["NonFiniteLossError"]
