"""The examples of the reference: each file of ``_examples`` has those of a module, by name."""

from __future__ import annotations

import re
from pathlib import Path

SETUP = "setup.py"


def read_examples(folder: Path) -> dict[str, str]:
    """Return the example of each public name, such as ``"pyrobbb.priors.Normal"``."""
    examples = {}
    for path in sorted(folder.glob("*.py")):
        if path.name == SETUP:
            continue
        module = "pyrobbb" if path.stem == "pyrobbb" else f"pyrobbb.{path.stem}"
        _, *cells = re.split(r"^# %% (\w+)\n", path.read_text(encoding="utf-8"), flags=re.M)
        for name, code in zip(cells[::2], cells[1::2], strict=True):
            examples[f"{module}.{name}"] = code.strip() + "\n"
    return examples
