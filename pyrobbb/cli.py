"""Command line: `pyrobbb demo` and `pyrobbb check`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="pyrobbb", description="Bayes by Backprop: uncertainty from a neural network."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="fit a regression and a classification on scikit-learn's data, with pictures",
        epilog="example: pyrobbb demo --out demo-output",
    )
    demo.add_argument("--out", default="demo-output", help="folder for the pictures")
    demo.add_argument("--quick", action="store_true", help="a small budget, to see that it runs")
    check = commands.add_parser(
        "check",
        help="see that two guides, two objectives and gradients by hand agree on this machine",
        epilog="example: pyrobbb check --seed 1",
    )
    check.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    from . import demo as demo_  # scikit-learn and matplotlib are imported only where used

    if options.command == "check":
        report = demo_.check(options.seed)
        return 0 if report else 1
    try:
        return 0 if demo_.run(options.out, quick=options.quick) else 1
    except ImportError as error:
        print(f"pyrobbb demo: {error}. Install it: pip install 'pyrobbb[sklearn]'", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
