"""Whether an approximation worked: one table of checks, and the measurements behind it."""

from .checks import Check, Diagnosis, ElboGain, dead_units, diagnose, elbo_gain, ess, layers, rhat
from .importance import khat_of_chains, khat_threshold, loo

__all__ = [
    "Check",
    "Diagnosis",
    "ElboGain",
    "dead_units",
    "diagnose",
    "elbo_gain",
    "ess",
    "khat_of_chains",
    "khat_threshold",
    "layers",
    "loo",
    "rhat",
]
