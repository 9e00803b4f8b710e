"""Files of finished runs, one JSON line per run, so that a script can resume."""

import json
from pathlib import Path


def read(path: Path, **keys) -> list[dict]:
    """Read the runs of a file that have the given values."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        runs = [json.loads(line) for line in file if line.strip()]
    return [run for run in runs if all(run.get(key) == value for key, value in keys.items())]


def append(path: Path, run: dict) -> None:
    """Append a run to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")
