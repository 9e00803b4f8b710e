"""Fitting chains: the checked configuration, batches, the training loop, checkpoints."""

from .callbacks import EpochEnd
from .config import FitConfig
from .restarts import fit_chains, fresh_start

__all__ = ["EpochEnd", "FitConfig", "fit_chains", "fresh_start"]
