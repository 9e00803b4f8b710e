"""The tests of exported programs need the torch that has loops in them."""

import pytest
import torch

if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 13):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def onnx():
    """Skip without the packages of the extra `onnx`."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
