"""The supported versions are those that the tests have run with."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints-oldest.txt").read_text(), re.M))


def test_the_lower_bounds_are_the_versions_of_the_oldest_run():
    bounds = {}
    for requirement in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["parquet"]):
        if "python_version >=" not in requirement:  # Python 3.11, which the run uses
            name, bound = re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement).groups()
            bounds[name] = bound
    assert bounds == {name: PINNED[name] for name in bounds}
    assert {"h5netcdf", "h5py", "torch", "numpy"} <= bounds.keys()
