"""Active learning: which rows to label next."""

from .joint_information import batch_bald, epig
from .marginal_information import bald, variance
from .selection import Strategy, select

__all__ = ["Strategy", "bald", "batch_bald", "epig", "select", "variance"]
