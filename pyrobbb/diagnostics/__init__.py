"""Diagnostics of an approximate posterior: a table of checks, and the measurements behind it."""

from .checks import Check, Diagnosis, diagnose
from .convergence import ElboGain, elbo_gain, ess, rhat
from .importance import khat_of_chains, khat_threshold, loo
from .weights import dead_units, layers

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
