"""The order of the packages, what is private to them, the size of files, the cost of the import."""

import ast
import graphlib
import importlib
import pickle
import re
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A package, or a module at the top level, imports only from those before it.
FLOORS = [
    "_core columns",
    "priors likelihoods datasets reference streams",
    "model",
    "elbo",
    "engines",
    "prediction scores",
    "fitted storage",
    "last_layers",
    "training",
    "arviz_io",
    "diagnostics",
    "export",
    "surrogates",
    "posterior",
    "acquisition comparisons",
    "plots",
    "estimators bandits",
    "tables report",
    "cli __main__",
    "__init__",
]
ORDER = " ".join(FLOORS).split()
MIN_LINES, MAX_LINES = 30, 400
ANY_LENGTH = {"pyrobbb.reference", "pyrobbb.__main__"}


def name_of(file):
    """Return the dotted name of a module, or of a package for its `__init__`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted((ROOT / "pyrobbb").rglob("*.py"))}
SOURCES = {module: file.read_text(encoding="utf-8") for module, file in FILES.items()}
PACKAGES = {module for module, file in FILES.items() if file.name == "__init__.py"}


def package_of(module):
    """Return the entry of `ORDER` to which a module belongs."""
    return [*module.split("."), "__init__"][1]


def imports(module, source):
    """Return the imports of a module as pairs: the module imported, and the name taken from it.

    The name is None where a module itself is imported. Imports inside functions count.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            for alias in node.names:
                path = f"{base}.{alias.name}"
                found.append((path, None) if path in FILES else (base, alias.name))
    return [(path, name) for path, name in found if path.partition(".")[0] == "pyrobbb"]


def absolute(module, node):
    """Return the full name of the module that a `from ... import` names."""
    if not node.level:
        return node.module
    parts = module.split(".")
    n_kept = len(parts) - node.level + (module in PACKAGES)
    return ".".join([*parts[:n_kept], *([node.module] if node.module else [])])


def upward_imports(module, source):
    """Return the imports of a module from packages that do not come before it."""
    mine = package_of(module)
    allowed = {mine, *ORDER[: ORDER.index(mine)]} - {"__init__"}
    return sorted({path for path, _ in imports(module, source) if package_of(path) not in allowed})


def private_uses(module, source):
    """Return the underscore names of other packages that a module imports or reads."""
    nodes = list(ast.walk(ast.parse(source)))
    bound = {}  # the full name of each imported name
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = f"{absolute(module, node)}." if isinstance(node, ast.ImportFrom) else ""
            bound |= {alias.asname or alias.name: base + alias.name for alias in node.names}
    used = set(bound.values())
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            first, _, rest = ast.unparse(node).partition(".")
            used.add(f"{bound.get(first, first)}.{rest}")
    return sorted(
        path for path in used if is_private(path) and package_of(path) != package_of(module)
    )


def is_private(path):
    """Return whether a dotted name of pyrobbb has an underscore below a package; `_core` is one."""
    package, *rest = path.split(".")
    return package == "pyrobbb" and any(re.match("_(?!_)", part) for part in rest[1:])


def test_every_package_and_module_has_a_place_in_the_order():
    assert {package_of(module) for module in FILES} == set(ORDER)


def test_every_module_imports_only_from_its_package_and_those_before_it():
    upward = {module: upward_imports(module, source) for module, source in SOURCES.items()}
    assert {module: paths for module, paths in upward.items() if paths} == {}


def test_no_module_uses_underscore_names_of_another_package():
    private = {module: private_uses(module, source) for module, source in SOURCES.items()}
    assert {module: names for module, names in private.items() if names} == {}


def test_there_are_no_circular_imports():
    graph = {
        module: {path for path, _ in imports(module, source)} for module, source in SOURCES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("module", sorted(PACKAGES))
def test_a_package_has_a_docstring_and_lists_what_is_public(module):
    assert ast.get_docstring(ast.parse(SOURCES[module]))
    package = importlib.import_module(module)
    assert len(package.__all__) == len(set(package.__all__))
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_files_are_neither_too_long_nor_too_short():
    n_lines = {
        module: SOURCES[module].count("\n") for module in FILES.keys() - PACKAGES - ANY_LENGTH
    }
    assert {m: n for m, n in n_lines.items() if not MIN_LINES <= n <= MAX_LINES} == {}


# The functions above on imports written in every way


@pytest.mark.parametrize(
    "source",
    [
        "from ..training.fitting import fit",
        "from ..training import fitting",
        "from .. import training",
        "from pyrobbb.training.fitting import fit",
        "from pyrobbb.training import fitting",
        "import pyrobbb.training.fitting as f",
        "if TYPE_CHECKING:\n    from ..training.fitting import fit",
        "def lazy():\n    from ..training.fitting import fit",
        "class Lazy:\n    def method(self):\n        import pyrobbb.training.fitting",
    ],
)
def test_an_upward_import_is_found_however_it_is_written(source):
    (found,) = upward_imports("pyrobbb.engines.base", source)
    assert found in ("pyrobbb.training", "pyrobbb.training.fitting")
    assert upward_imports("pyrobbb.cli.main", source) == []
    assert upward_imports("pyrobbb.training.loop", source) == []


@pytest.mark.parametrize(
    "source", ["import pyrobbb", "from pyrobbb import fit", "from .. import fit"]
)
def test_the_package_itself_comes_after_all_others(source):
    assert upward_imports("pyrobbb.cli.main", source) == ["pyrobbb"]


def test_imports_of_other_libraries_are_ignored():
    source = "import numpy.training\nfrom pyro import infer\nimport pyro.cli, torch._dynamo"
    assert upward_imports("pyrobbb.engines.base", source) == []
    assert private_uses("pyrobbb.engines.base", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "from ..training.fitting import _check",
        "from pyrobbb.training.fitting import _check",
        "from ..training import fitting\nfitting._check()",
        "from ..training import fitting as f\ndef g():\n    return f._check",
        "import pyrobbb.training.fitting\npyrobbb.training.fitting._check",
        "import pyrobbb.training.fitting as f\nf._check",
    ],
)
def test_an_underscore_name_is_found_however_it_is_reached(source):
    assert private_uses("pyrobbb.cli.main", source) == ["pyrobbb.training.fitting._check"]
    assert private_uses("pyrobbb.training.loop", source) == []


def test_the_package_core_and_dunder_names_may_be_used():
    source = "from .._core.arrays import to_numpy\nfrom .. import model\nmodel.__doc__, self._x"
    assert private_uses("pyrobbb.cli.main", source) == []


# The cost of the import


@pytest.fixture(scope="module")
def modules_after_import():
    code = "import sys, pyrobbb; print(*sys.modules, sep='\\n')"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


@pytest.mark.parametrize(
    "name",
    [
        *("arviz_base", "matplotlib", "numpy", "pandas", "pyro", "rich", "sklearn", "torch"),
        *("typer", "xarray"),
        *(f"pyrobbb.{own}" for own in ("bandits", "comparisons", "model", "plots", "posterior")),
    ],
)
def test_importing_pyrobbb_imports_nothing_else_yet(modules_after_import, name):
    assert "pyrobbb" in modules_after_import
    assert name not in modules_after_import


def test_a_name_is_imported_on_first_access_with_what_it_needs_and_no_more():
    code = (
        "import sys, pyrobbb; pyrobbb.fit, pyrobbb.priors, pyrobbb.model.network.BayesianNetwork\n"
        "print(*sys.modules, hasattr(pyrobbb, 'nothing'))"
    )
    *modules, has_nothing = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert has_nothing == "False"
    modules = set(modules)
    assert "torch" in modules
    assert not modules & {"matplotlib", "arviz_base", "pandas", "sklearn", "typer", "xarray"}


def test_every_public_name_is_found_by_attribute_star_import_dir_and_pickle():
    import pyrobbb

    namespace = {}
    exec("from pyrobbb import *", namespace)
    for name in pyrobbb.__all__:
        value = getattr(pyrobbb, name)
        assert namespace[name] is value
        assert name in dir(pyrobbb)
        if not isinstance(value, types.ModuleType):
            assert pickle.loads(pickle.dumps(value)) is value
            assert value.__module__.startswith("pyrobbb.")
    assert pyrobbb.__version__ in metadata.version("pyrobbb")
    assert "__version__" in dir(pyrobbb)


def test_an_unknown_name_is_an_import_error():
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'pyrobbb'"):
        exec("from pyrobbb import nothing")


def test_type_checkers_see_the_names_that_are_imported_on_first_access():
    tree = ast.parse(SOURCES["pyrobbb"])
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(importlib.import_module("pyrobbb").__all__)


def test_packages_with_a_page_of_the_reference_are_attributes_before_they_are_imported():
    pages = Path(__file__).parents[1].glob("docs/reference/api/*.md")
    names = sorted({page.stem for page in pages} - {"index", "top"})
    assert "surrogates" in names
    code = f"import pyrobbb\nfor name in {names}: assert getattr(pyrobbb, name)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_may_access_names_for_the_first_time_together():
    code = (
        "import concurrent.futures, pyrobbb\n"
        "with concurrent.futures.ThreadPoolExecutor(len(pyrobbb.__all__)) as pool:\n"
        "    values = pool.map(lambda name: getattr(pyrobbb, name), pyrobbb.__all__)\n"
        "    print(len(list(values)) == len(pyrobbb.__all__))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"


def test_a_child_forked_during_an_import_of_another_thread_can_import():
    code = (
        "import os, threading, pyrobbb\n"
        "held, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with pyrobbb._lock:\n"
        "        held.set(); done.wait()\n"
        "threading.Thread(target=hold).start()\n"
        "held.wait()\n"
        "if os.fork() == 0:\n"
        "    print(pyrobbb.reference.__name__, flush=True); os._exit(0)\n"
        "os.wait(); done.set()\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    assert subprocess.check_output(command, text=True, timeout=60).strip() == "pyrobbb.reference"
