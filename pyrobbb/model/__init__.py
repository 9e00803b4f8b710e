"""The Pyro model of a network, and its guides."""

from .guides import LowRankGuide, MeanFieldGuide, auto_normal
from .mlp import mlp
from .network import BayesianNetwork

__all__ = ["BayesianNetwork", "LowRankGuide", "MeanFieldGuide", "auto_normal", "mlp"]
