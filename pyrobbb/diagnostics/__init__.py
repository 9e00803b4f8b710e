"""Whether an approximation worked: checks, measurements and comparisons with NUTS."""

from .checks import Check, Diagnosis, ElboGain, dead_units, diagnose, elbo_gain, ess, layers, rhat
from .crosscheck import crosscheck
from .importance import khat_of_chains, khat_threshold, loo
from .nuts import compare_with_nuts
from .sbc import sbc

__all__ = [
    "Check",
    "Diagnosis",
    "ElboGain",
    "compare_with_nuts",
    "crosscheck",
    "dead_units",
    "diagnose",
    "elbo_gain",
    "ess",
    "khat_of_chains",
    "khat_threshold",
    "layers",
    "loo",
    "rhat",
    "sbc",
]
