"""The posterior of a network: fit, draw, predict, save, update and prune it."""

from .fitting import fit
from .posterior import Posterior
from .pruning import prune
from .updating import update

__all__ = ["Posterior", "fit", "prune", "update"]
