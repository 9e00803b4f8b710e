"""Time the import of `pyrobbb.fit` in fresh processes, and the imports that it requires."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from statistics import median

from harness import Case, Options, Row, emit, options_of, parser, wall_seconds
from summary import S, failure, pooled, ratio, select, significant, spread_cells, table

TITLE = "Import"
CAPTION = """\
Seconds of a process that imports and exits. Median and quartiles over processes and rounds, in
alternation, after one unmeasured process that reads the files from disk. The last column is the
time that the import adds to an empty process."""
WAYS = {
    "pyrobbb": "import pyrobbb; pyrobbb.fit",  # names are imported on first access
    "pyro": "import torch, pyro",
    "nothing": "pass",
}


def cases(options: Options) -> list[Case]:
    """List what is timed."""
    return [Case({"what": way}) for way in WAYS]


def measure(way: str, options: Options) -> Iterator[Row]:
    """Time some processes."""
    command = [sys.executable, "-c", WAYS[way]]
    wall_seconds(command)
    yield {"seconds": [wall_seconds(command)[0] for _ in range(1 if options.quick else 5)]}


def section(rows: list[Row]) -> str:
    """Write the table."""
    found = {way: select(rows, what=way) for way in WAYS}
    empty = median(pooled(found["nothing"])) if pooled(found["nothing"]) else 0.0
    lines = []
    for way, group in found.items():
        if not pooled(group):
            lines.append([f"`{WAYS[way]}`", failure(group), "", ""])
            continue
        added = significant(median(pooled(group)) - empty) if way != "nothing" else ""
        lines.append([f"`{WAYS[way]}`", *spread_cells(pooled(group), S), added])
    both = ratio(found["pyrobbb"], found["pyro"])
    head = ["", "median, s", "quartiles, s", "added, s"]
    words = f"`{WAYS['pyrobbb']}` takes {both} times as long as `{WAYS['pyro']}`."
    return f"{table(head, lines)}\n\n{words}"


def main() -> None:
    """Time one import."""
    arguments = parser(__doc__)
    arguments.add_argument("--what", choices=WAYS, required=True)
    given = arguments.parse_args()
    emit(lambda: measure(given.what, options_of(given)))


if __name__ == "__main__":
    main()
