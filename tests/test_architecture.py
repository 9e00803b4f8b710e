"""The direction of the imports, and what `import pyrobbb` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pyrobbb"

# A module may import from those before it. `__init__` comes last and may import from all.
ORDER = [
    "data",
    "history",
    "schedules",
    "states",
    "randomness",
    "processes",
    "streams",
    "scaling",
    "architectures",
    "datasets",
    "layer_chain",
    "priors",
    "likelihoods",
    "output_slopes",
    "network",
    "placement",
    "guides",
    "flat_prior",
    "gradient_estimators",
    "fused",
    "objectives",
    "optimizers",
    "noise",
    "engine",
    "fused_engine",
    "compiled_engine",
    "auto_engine",
    "batches",
    "sampling",
    "calibration",
    "prediction",
    "strict_json",
    "folders",
    "descriptions",
    "storage",
    "early_stopping",
    "posterior",
    "warm_start",
    "callbacks",
    "checkpoints",
    "plan",
    "run",
    "fitting",
    "streaming",
    "reference",
    "crosscheck",
    "scores",
    "datatree",
    "table_error",
    "delimited",
    "tables",
    "table_writer",
    "cells",
    "columns",
    "schema",
    "arviz_io",
    "pyro_program",
    "pyro_io",
    "importance",
    "diagnostics",
    "nuts",
    "simulation",
    "tree_plots",
    "plots",
    "pruning",
    "replay",
    "bandit_storage",
    "bandit_plan",
    "bandit_agent",
    "thompson",
    "epsilon_greedy",
    "mushrooms",
    "bandits",
    "estimator_storage",
    "estimators",
    "table_model",
    "report_scores",
    "report_findings",
    "report_figures",
    "report_html",
    "report_sections",
    "report_model",
    "report",
    "demo",
    "cli_options",
    "cli_output",
    "cli",
    "__init__",
]
# Methods whose code stands elsewhere; imported when called.
ALLOWED_WHEN_CALLED = {("posterior", "arviz_io"), ("posterior", "diagnostics")}

FILES = sorted(PACKAGE.rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def module_name(file):
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def imported_modules(source):
    """Give the modules of pyrobbb that a source text imports, each with whether only when called.

    A name taken from the package itself belongs to `__init__`, unless there is a module so named.
    """
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    in_functions = {inner for function in functions for inner in ast.walk(function)}
    known = {*ORDER, *map(module_name, FILES)}
    found = set()
    for node in ast.walk(tree):
        for path in imported_paths(node):
            package, _, name = path.partition(".")
            if package == "pyrobbb":
                found.add((name if name in known else "__init__", node in in_functions))
    return found


def imported_paths(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = ".".join(filter(None, ["pyrobbb" if node.level else "", node.module]))
        return [f"pyrobbb.{a.name}" for a in node.names] if base == "pyrobbb" else [base]
    return []


def arrows_back(name, source):
    """Give the modules that `name` imports and that do not come before it."""
    allowed = ORDER[: ORDER.index(name)]
    return [
        target
        for target, when_called in sorted(imported_modules(source))
        if target not in allowed and not (when_called and (name, target) in ALLOWED_WHEN_CALLED)
    ]


def test_every_module_has_a_place_in_the_order():
    assert not {module_name(file) for file in FILES} - set(ORDER)


@pytest.mark.parametrize("file", [f for f in FILES if module_name(f) in ORDER], ids=module_name)
def test_a_module_imports_only_from_those_before_it(file):
    assert arrows_back(module_name(file), file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from .fitting import fit",
        "from . import fitting",
        "from pyrobbb.training.fitting import fit",
        "from pyrobbb import fitting",
        "import pyrobbb.training.fitting as f",
        "if TYPE_CHECKING:\n    from .fitting import fit",
        "def lazy():\n    from .fitting import fit",
        "class Lazy:\n    def method(self):\n        import pyrobbb.training.fitting",
    ],
)
def test_an_arrow_that_runs_back_is_found_however_it_is_written(source):
    assert arrows_back("engine", source) == ["fitting"]
    assert arrows_back("cli", source) == []


@pytest.mark.parametrize(
    "source", ["import pyrobbb", "from pyrobbb import fit", "from . import fit"]
)
def test_the_package_itself_comes_after_all_modules(source):
    assert arrows_back("cli", source) == ["__init__"]


def test_posterior_may_import_arviz_io_only_when_called():
    assert arrows_back("posterior", "def to_arviz():\n    from .arviz_io import convert") == []
    assert arrows_back("posterior", "from .arviz_io import convert") == ["arviz_io"]


def test_imports_from_elsewhere_are_no_arrows():
    source = "import numpy.fitting\nfrom pyro import infer\nimport pyro.cli"
    assert imported_modules(source) == set()


@pytest.fixture(scope="module")
def modules_after_import():
    code = "import sys, pyrobbb; print(*sys.modules, sep='\\n')"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


@pytest.mark.parametrize(
    "name", ["matplotlib", "arviz_base", "pandas", "rich", "sklearn", "typer", "xarray"]
)
def test_importing_pyrobbb_leaves_what_only_some_need_alone(modules_after_import, name):
    assert "pyrobbb" in modules_after_import
    assert name not in modules_after_import
