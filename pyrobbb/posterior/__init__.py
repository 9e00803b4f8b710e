"""The posterior of a network: fit, draw, predict, save, update and prune it."""

from .closed_form import last_layer
from .fitting import fit
from .posterior import Posterior
from .pruning import prune
from .updating import update

__all__ = ["Posterior", "fit", "last_layer", "prune", "update"]
