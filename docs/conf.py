"""Configuration of Sphinx: `make docs` builds the site into docs/_build/html."""

import os
import socket
import sys
import warnings
from importlib.metadata import version as _version
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(ROOT)]

from examples import read_examples  # noqa: E402
from notebooks import STORED  # noqa: E402

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the fits are small
os.environ.pop("MPLBACKEND", None)  # the kernels set their own, which shows figures
os.environ["PYTHONPATH"] = str(ROOT)  # for the kernels of the notebooks
warnings.filterwarnings("ignore", "IProgress not found")

project = "pyrobbb"
author = "The pyrobbb developers"
copyright = "the pyrobbb developers"
version = release = _version("pyrobbb")
language = "en"

extensions = [
    "myst_nb",
    "numpydoc",
    "notebooks",
    "docstrings",
    "gallery",
    "mathml",
    "search_names",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.typer",
]
exclude_patterns = [
    *("_build", "_ext", "_templates", "pictures"),
    *(f"gallery/*.{end}" for end in ("ipynb", "json", "md5", "py", "zip")),
    "**/sg_execution_times.rst",
]
templates_path = ["_templates"]

# A name between backticks in a docstring is a link where it names a public object, and code where
# it does not, such as an argument. All other references must resolve.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*"), ("py:class", r"torch\.optim\.adam\.Adam")]

autosummary_context = {"examples": read_examples(DOCS / "_examples")}
autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_validation_checks = {
    *("GL01", "GL03", "GL05", "GL06", "GL07", "GL10"),  # sections
    *("SS01", "SS02", "SS04", "PR02", "PR06", "RT05"),  # summaries, arguments, types
}
numpydoc_validation_exclude = {
    r"\.set_\w+_request$",
    r"\.reference\.Gradients\.",
    "^sklearn",
    "^torch",
}

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
_CACHE = ".quick-cache" if os.environ.get("PYROBBB_QUICK") else ".jupyter_cache"
nb_execution_cache_path = str(DOCS / "_build" / _CACHE)
nb_execution_excludepatterns = [f"tutorials/{name}" for name in STORED]
nb_execution_timeout = 1200
nb_execution_raise_on_error = True
nb_merge_streams = True

sphinx_gallery_conf = {
    "examples_dirs": "pictures",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "reference/api/examples",
    "doc_module": ("pyrobbb",),
    "reference_url": {"pyrobbb": None},
    "image_scrapers": ("matplotlib",),
    "capture_repr": (),
    "abort_on_example_error": True,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 10**6,
    "show_signature": False,
    "download_all_examples": False,
    "copyfile_regex": r"$^",
}


def _is_reachable(url: str) -> bool:
    """Return whether a host accepts connections."""
    try:
        socket.create_connection((url.split("/")[2], 443), timeout=1).close()
    except OSError:
        return False
    return True


# Other projects' names are links only where their inventories can be read: no network, no links.
_INVENTORIES = {
    "arviz": "https://python.arviz.org/en/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pyro": "https://docs.pyro.ai/en/stable/",
    "python": "https://docs.python.org/3/",
    "sklearn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}
intersphinx_mapping = {
    name: (url, None) for name, url in _INVENTORIES.items() if _is_reachable(url)
}

html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_title = f"pyrobbb {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 7,
    "logo": {"text": "pyrobbb"},
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ |> "
copybutton_prompt_is_regexp = True
suppress_warnings = ["mystnb.unknown_mime_type"]
