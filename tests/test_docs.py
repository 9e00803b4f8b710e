"""The documentation site: public names are listed, links resolve, and the code of pages runs."""

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from inspect import getmembers, ismodule
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import pyrobbb

DOCS = Path(__file__).parents[1] / "docs"
API = DOCS / "reference" / "api"
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if not {"_build", "generated", "pictures"} & set(path.relative_to(DOCS).parts)
)
PRIVATE = {"_core", "cli"}
"""Packages without a page: internals, and the command line, which has a page of another kind."""
CONSTANTS = {"ACCENT", "INK", "SECOND", "SOFT"}


def listed_names():
    """Return the full names in all lists of the reference."""
    names = []
    for page in API.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for module, block in re.findall(
            r"currentmodule:: (\S+)(.*?)(?=currentmodule|\Z)", text, re.S
        ):
            items = re.findall(r"^   ([A-Za-z]\w+)$", block, re.M)
            items += re.findall(r"py:data:: (\w+)", block)
            names += [f"{module}.{item}" for item in items]
    return names


def packages():
    """Return all packages and modules of pyrobbb that have a page."""
    folder = Path(pyrobbb.__file__).parent
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    names = {name for name in names if not name.startswith("_")} - PRIVATE
    return [importlib.import_module(f"pyrobbb.{name}") for name in sorted(names)]


def public_names(module: ModuleType):
    """Return the public members of a module that are no modules themselves."""
    own = [
        name
        for name, value in getmembers(module)
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        and (callable(value))
    ]  # fmt: skip
    names = getattr(module, "__all__", own)
    return [name for name in names if not ismodule(getattr(module, name))]


def test_every_public_name_is_listed_in_the_reference():
    listed = {id(resolve(name)): name for name in listed_names()}
    missing = [
        f"{module.__name__}.{name}"
        for module in [pyrobbb, *packages()]
        for name in public_names(module)
        if name not in CONSTANTS and id(getattr(module, name)) not in listed
    ]
    assert missing == []


def test_every_public_name_is_listed_once():
    names = listed_names()
    assert len(names) == len(set(names)) > 100


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def anchors(text):
    """Return the anchors of the headings of a page, and its explicit targets."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
    return {*slugs, *re.findall(r"^\(([\w-]+)\)=$", text, re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_within_the_documentation_resolve(page):
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"```(?!\{).*?```", "", text, flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if path.parent.name == "tutorials" and path.suffix == ".ipynb":
            path = DOCS.parent / "notebooks" / path.name  # copied there by the build
        assert path.is_file(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


ROOT = DOCS.parent
READ_IN_THE_REPOSITORY = [
    *PAGES,
    *ROOT.glob("*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("examples/**/*.md"),
    *ROOT.glob("notebooks/*.ipynb"),
]


@pytest.mark.parametrize(
    "page", READ_IN_THE_REPOSITORY, ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_has_a_text_that_is_seen_without_sphinx(page):
    assert re.findall(r"(?<!!)\[\s*\]\([^)]*\)", page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_links_of_a_notebook_resolve_in_the_repository(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        assert re.match(r"\w+:", target) or (path.parent / target).is_file(), target


def test_the_cpu_build_of_torch_has_the_version_of_the_constraints():
    """Another version would be replaced by the build with CUDA."""
    named = re.findall(
        r"pip install (torch==\S+)", (DOCS / "start" / "install.md").read_text("utf-8")
    )
    (pinned,) = re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    assert named == [pinned]


def test_extras_are_installed_in_one_way_everywhere():
    """pip finds the extras of an installed pyrobbb without an index, from any folder."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    code = [*ROOT.glob("pyrobbb/**/*.py"), *ROOT.glob("examples/**/*.py")]
    wrong = [
        (path.name, command)
        for path in [*READ_IN_THE_REPOSITORY, *code]
        for command, extra in re.findall(
            r"(pip install [^\n`]*\[(\w+)\][^\s`]*)", path.read_text(encoding="utf-8")
        )
        if f'pip install "pyrobbb[{extra}]"' not in command.replace("\\", "") or extra not in extras
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_page_is_in_a_table_of_contents(page):
    if page == DOCS / "index.md" or page.name == "GALLERY_HEADER.md":
        return
    listed = set()
    for other in PAGES:
        text = other.read_text(encoding="utf-8")
        for block in re.findall(r"\{toctree\}\n(.*?)\n```", text, re.S):
            for line in block.splitlines():
                if line and not line.startswith(":"):
                    listed.add((other.parent / line.strip().split("<")[-1].strip(">")).resolve())
    assert page.with_suffix("") in listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_picture_has_alternative_text(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"!\[\s*\]\(", text) == []
    for block in re.findall(r"\{(?:image|figure)\} [^\n]*\n(.*?)```", text, re.S):
        assert re.search(r"^:alt: \S", block, re.M)


GUIDES = [
    path
    for path in PAGES
    if path.parent.name in ("start", "how-to", "explanation", "reference")
    and "```python\n" in path.read_text("utf-8")
]
NEEDS = {
    "bayesian-optimization": "botorch",
    "pyrobbb.surrogates.to_botorch": "botorch",
    "skpro": "skpro",
}
"""Guides, and examples of the reference, that need the package of an extra."""


def skip_without_extra(name):
    """Skip an example or a guide whose package is not installed."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}, of an extra")


SLOW_GUIDES = {"arviz", "command-line", "kl-weight"}  # run by `make test-all`


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in SLOW_GUIDES))
        for page in GUIDES
    ],
)
def test_the_code_of_a_guide_runs_as_it_is_printed(page, tmp_path, monkeypatch):
    skip_without_extra(page.stem)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide"}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.S | re.M):
        exec(compile(block, str(page), "exec"), names)


def _has_reticulate():
    """Return whether R has a reticulate that supports NumPy 2 and pandas 3."""
    if shutil.which("Rscript") is None:
        return False
    query = (
        "quit(status = !(requireNamespace('reticulate') && packageVersion('reticulate') >= '1.45'))"
    )
    return (
        subprocess.run(["Rscript", "-e", query], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not _has_reticulate(), reason="needs R with reticulate 1.45 or later")
def test_the_code_of_the_page_on_r_runs_as_it_is_printed(tmp_path):
    text = (DOCS / "how-to" / "r.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```r\n(.*?)^```", text, re.S | re.M))
    script = tmp_path / "page.R"
    script.write_text(code, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(DOCS.parent),
        "RETICULATE_PYTHON": sys.executable,
    }
    run = subprocess.run(
        ["Rscript", str(script)],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "cars-model").is_dir()


PICTURES = sorted((DOCS / "pictures").glob("*.py"))


def test_every_plot_has_a_picture_in_the_gallery():
    from pyrobbb import plots

    shown = {path.stem for path in PICTURES}
    assert [name for name in plots.__all__ if name.startswith("plot_") and name not in shown] == []


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_script_of_the_gallery_is_short_and_calls_what_it_shows(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
    if path.stem.startswith("plot_"):
        assert f"plots.{path.stem}(" in text


def read_examples():
    """Return the examples of the reference by the extension that prints them."""
    path = DOCS / "_ext" / "examples.py"
    spec = importlib.util.spec_from_file_location("docs_examples", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read_examples(DOCS / "_examples")


EXAMPLES = read_examples()
PROTOCOLS = {
    "pyrobbb.acquisition.Strategy",
    "pyrobbb.export.Format",
    "pyrobbb.fitted.HasChains",
    "pyrobbb.likelihoods.Likelihood",
    "pyrobbb.priors.Prior",
    "pyrobbb.streams.Rows",
}
"""Types for annotations."""
SLOW_EXAMPLES = (  # run by `make test-all`
    *(f"pyrobbb.{name}" for name in ("BBB", "comparisons", "compare_with", "crosscheck", "sbc")),
    *(f"pyrobbb.{name}" for name in ("diagnostics", "plots.plot_", "report", "arviz_io", "tables")),
)
DOWNLOADS = {
    f"pyrobbb.datasets.load_{name}" for name in ("mnist", "fashion_mnist", "mushroom")
}  # fmt: skip


def test_every_public_name_has_an_example():
    assert set(listed_names()) - PROTOCOLS == set(EXAMPLES)


@pytest.fixture(scope="module")
def shared():
    names = {"__name__": "examples"}
    exec((DOCS / "_examples" / "setup.py").read_text(encoding="utf-8"), names)
    return names


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # large k-hats
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith(SLOW_EXAMPLES))
        for name in sorted(set(EXAMPLES) - DOWNLOADS)
    ],
)
def test_an_example_of_the_reference_runs(name, shared, tmp_path, monkeypatch):
    skip_without_extra(name)
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES[name]
    assert name.rpartition(".")[2] in code
    torch.manual_seed(0)
    exec(compile(code, name, "exec"), {**shared, "rng": np.random.default_rng(1)})
