"""The files of a stored posterior: their names, and the hash that covers them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

FORMAT = 3
HEADER = "posterior.json"
TENSORS = re.compile(r"posterior-([0-9a-f]{16})\.safetensors")
SCRATCH = re.compile(r"\.posterior-([0-9a-f]{16})\.json")


def tensors_name(token: str) -> str:
    """Return the name of a file of tensors."""
    return f"posterior-{token}.safetensors"


def scratch_name(token: str) -> str:
    """Return the name of a header that is being written for the tensors with the same token."""
    return f".posterior-{token}.json"


def token_of(name: str) -> str | None:
    """Return the token in such a name, or None."""
    match = TENSORS.fullmatch(name) or SCRATCH.fullmatch(name)
    return None if match is None else match[1]


def hash_of_header(header: Mapping[str, Any]) -> Any:
    """Return the hash of a header without its own hash, to be updated by the tensors."""
    reference = {n: v for n, v in header["tensors"].items() if n != "sha256"}
    text = json.dumps({**header, "tensors": reference}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode() + b"\n")
