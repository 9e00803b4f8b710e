"""Completion in a shell: of columns, from the header of the table, without heavy imports."""

import json
import subprocess
import sys

import pytest

COMPLETIONS = {
    ("fit t.csv --target ", 4): ["price", "size", "size of garden", "town"],
    ("fit t.csv --target si", 4): ["size", "size of garden"],
    ("fit t.csv --out m --target p", 6): ["price"],
    ("fit t.csv --target price --drop s", 6): ["size", "size of garden"],
    ("fit t.csv --target price --drop size,", 6): [
        "size,price",
        "size,size of garden",
        "size,town",
    ],
    ("fit t.csv --categorical town,p", 4): ["town,price"],
    ("fit semicolons.txt --delimiter ; --target ", 6): ["a", "b"],
    ("predict m t.csv --keep t", 5): ["town"],
    ("predict m t.csv --out p.csv --keep t", 7): ["town"],
    ("fit --target ", 3): [],
    ("fit none.csv --target ", 4): [],
    ("fit t.csv --likelihood pois", 4): ["poisson"],
}
RUN_ALL = """
import contextlib, io, json, os, sys
from pyrobbb.cli import main
os.environ["_PYROBBB_COMPLETE"] = "complete_bash"
for words, position in json.load(sys.stdin):
    os.environ.update(COMP_WORDS=f"pyrobbb {words}", COMP_CWORD=str(position))
    out, sys.argv = io.StringIO(), ["pyrobbb"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main()
    heavy = [name for name in ("torch", "pandas", "sklearn") if name in sys.modules]
    print(json.dumps([words, out.getvalue().split("\\n"), heavy]))
"""


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """Return the completions of each line, and the heavy modules that are imported by then."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "t.csv").write_text("price,size,size of garden,town\n1,2,3,Ulm\n")
    (folder / "semicolons.txt").write_text("a;b\n1;2\n")
    shown = subprocess.check_output(
        [sys.executable, "-c", RUN_ALL], input=json.dumps(list(COMPLETIONS)), text=True, cwd=folder
    )
    return {words: rest for words, *rest in map(json.loads, shown.splitlines())}


@pytest.mark.parametrize("line", COMPLETIONS)
def test_columns_are_completed_from_the_header(completed, line):
    found, heavy = completed[line[0]]
    assert [word for word in found if word] == COMPLETIONS[line]
    assert heavy == []
