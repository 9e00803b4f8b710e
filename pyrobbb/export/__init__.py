"""Posteriors as files that predict without pyrobbb: programs of `torch.export` and ONNX."""

from .units import Units
from .writing import Format, export_chains

__all__ = ["Format", "Units", "export_chains"]
