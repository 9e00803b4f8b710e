"""Scores in a file, a line each, so that a long benchmark resumes where its last run ended."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def parser(doc: str | None, models: Iterable[str]) -> argparse.ArgumentParser:
    """Return a parser of the options that the benchmarks of models share."""
    names = list(models)
    options = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    options.add_argument("--models", nargs="+", choices=names, default=names)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--page", action="store_true", help="only write the page anew")
    return options


def read(path: Path) -> list[Row]:
    """Return the scores so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def resume(path: Path, jobs: Iterable[tuple[Row, Callable[[], Row]]]) -> None:
    """Run the jobs that are not in the file yet; append each one's scores as soon as it ends.

    Parameters
    ----------
    path : Path
    jobs : iterable of pairs
        What identifies a job, such as its set, split and model; and a function that returns its
        scores, with the seconds per fit if they are not those of the job.
    """
    rows = read(path)
    for job, scores_of in jobs:
        if any(all(row.get(name) == value for name, value in job.items()) for row in rows):
            continue
        start = time.perf_counter()
        scores = scores_of()
        row = {**job, "seconds": time.perf_counter() - start, **scores}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
