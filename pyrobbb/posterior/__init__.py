"""The posterior: draws, predictions, files, pruning and updating."""

from .posterior import Posterior
from .pruning import prune
from .updating import update

__all__ = ["Posterior", "prune", "update"]
