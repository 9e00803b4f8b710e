"""Whether the method is right: compared with Pyro, NUTS, and the truth in simulated data."""

from .crosscheck import crosscheck
from .nuts import compare_with_nuts
from .sbc import sbc

__all__ = ["compare_with_nuts", "crosscheck", "sbc"]
