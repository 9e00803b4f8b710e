"""Every example and notebook runs on a small budget, without a warning, and is listed here."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
EXAMPLES_FOLDER = ROOT / "examples"

# What a run must print. A new example or notebook needs one line here.
EXAMPLES = {
    "cli_tour.sh": ["regression of progression", "q95", "Diagnosis", "report.html", "before"],
    "lightning_trainer.py": ["nelbo   mean +- sd of y at", "Lightning", "fit"],
    "loggers.py": ["lines of JSON", "kl_weight", "seconds"],
    "lora.py": ["adapters: 512 of", "base, without adapters", "adapters as posterior"],
    "active_learning.py": ["batch_bald with 80 labels", "by 1 of 1 seeds"],
    "bayesian_optimization.py": ["simple regret", "Hartmann6", "Jumps10"],
    "arviz_workflow.py": ["Not converged", "posterior_predictive", "noise_scale", "elpd"],
    "pyro_loop.py": ["MeanFieldGuide", "AutoLowRankMultivariateNormal"],
    "sklearn_pipeline.py": [
        "likelihood selected by cross-validation",
        "same predictions after loading: True",
        "most uncertain 20 %",
    ],
    "quickstart.py": ["rmse", "nats per patient", "coverage of the 90 % intervals"],
    "seed_bernoulli.py": ["nan", "Beta(1, 1) prior, posterior mean   0.618", "NumPy", "pyrobbb"],
    "seed_by_hand.py": ["rho W2", "returns the same cost and gradients", "gradient descent"],
    "seed_eleven_steps.py": [
        "independent of the data",
        "Trace_ELBO",
        "gradient of rho: 24 elements",
    ],
    "seed_regression.py": ["(100, 100)", "Pass y.reshape(-1, 1)", "correlation"],
    "paper/bandit.py": ["600 simulated mushrooms", "Bayes by Backprop", "last 10 %"],
    "paper/curve.py": ["interquartile range", "(within the data)", "rmse of the point estimate"],
    "paper/mnist.py": ["sgd", "dropout", "gaussian", "mixture"],
    "paper/mnist_kl_weight.py": ["chosen KL weight", "'draws': 100"],
    "paper/pruning.py": ["removed  error % at means", "98%", "masked dense outputs agree"],
    "paper/tutorial.py": ["hidden units 32-32", "accuracy with 95% of the weights removed"],
}
SLOW = {  # run by `make test-all`
    "active_learning.py",
    "bayesian_optimization.py",
    "cli_tour.sh",
    "paper/curve.py",
    "paper/mnist.py",
    "paper/mnist_kl_weight.py",
    "paper/pruning.py",
    "arviz_workflow.py",
    "lightning_trainer.py",
    "pyro_loop.py",
    "03-vi-against-nuts.ipynb",
    "04-tabular-uncertainty.ipynb",
    "05-weight-pruning.ipynb",
    "07-active-learning.ipynb",
    "09-decision-surface.ipynb",
    "10-own-module.ipynb",
    "11-images.ipynb",
    "12-sequences.ipynb",
    "13-pretrained-trunk.ipynb",
    "14-bayesian-regression.ipynb",
    "15-limits.ipynb",
}
NEEDS = {  # packages that not all environments of the tests have
    "lightning_trainer.py": "lightning",
    "bayesian_optimization.py": "botorch",
    "08-bayesian-optimization.ipynb": "botorch",
}
PARTS = {"paper/images.py", "paper/records.py"}  # modules that examples import
NOTEBOOKS = {
    "00-quickstart.ipynb": [
        "coverage of the 90 % intervals",
        "same predictions after loading: True",
    ],
    "01-bayes-by-backprop.ipynb": ["comparisons agree", "Pass y.reshape(-1, 1)"],
    "02-diagnostics-with-arviz.ipynb": ["R-hat of the mean", "corrected for q", "more epochs"],
    "03-vi-against-nuts.ipynb": [
        "Wasserstein distance",
        "four restarts",
        "lp: outside the 90 % interval",
    ],
    "04-tabular-uncertainty.ipynb": [
        "coverage of the 90 % intervals",
        "auto selects",
        "k-hat",
        "after partial_fit",
    ],
    "05-weight-pruning.ipynb": ["weights left", "at random", "same test error: True"],
    "06-thompson-sampling.ipynb": [
        "reward of eating at random",
        "in the last third",
        "epistemic sd, edible",
        "same actions after loading: True",
    ],
    "07-active-learning.ipynb": ["1797 images", "batch_bald labels for", "most informative about"],
    "08-bayesian-optimization.ipynb": ["trials, simple regret", "four points", "Jumps10"],
    "09-decision-surface.ipynb": ["far from all data", "between the moons", "without Bayes"],
    "10-own-module.ipynb": ["NUTS: exact", "law and network", "10 more at high concentrations"],
    "11-images.ipynb": ["without", "mutual information", "last layer: error"],
    "12-sequences.ipynb": ["90 % intervals cover", "epistemic", "predicted frequency"],
    "13-pretrained-trunk.ipynb": [
        "last layer, closed form",
        "same predictions after loading: True",
        "confidence:",
    ],
    "14-bayesian-regression.ipynb": ["negative ELBO", "closed form", "slope in Africa"],
    "15-limits.ipynb": ["epistemic sd at x = 0", "50 units", "low_rank"],
}
ENVIRONMENT = {
    **os.environ,
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYROBBB_QUICK": "1",
}
# Deprecations in a new Python or torch are not the examples' mistakes.
WARNINGS = ["-W", "error", "-W", "default::DeprecationWarning"]


def test_every_example_is_listed():
    files = [file for end in ("py", "sh") for file in EXAMPLES_FOLDER.rglob(f"*.{end}")]
    names = {file.relative_to(EXAMPLES_FOLDER).as_posix() for file in files}
    assert names == set(EXAMPLES) | PARTS


def test_every_notebook_is_listed():
    assert {file.name for file in (ROOT / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)


def cases(names):
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


@pytest.mark.parametrize("name", cases(EXAMPLES))
def test_an_example_runs_quickly_and_leaves_no_files(name, tmp_path):
    python = [sys.executable, *WARNINGS] if name.endswith(".py") else []
    command = [*python, str(EXAMPLES_FOLDER / name), "--quick"]
    run = subprocess.run(
        command, capture_output=True, cwd=tmp_path, env=ENVIRONMENT, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert [words for words in EXAMPLES[name] if words not in run.stdout] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", cases(NOTEBOOKS))
def test_a_notebook_runs_quickly(name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}")
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("MPLBACKEND")  # the kernel sets its own
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert text_of(notebook, "stderr") == ""
    printed = text_of(notebook, "stdout")
    assert [words for words in NOTEBOOKS[name] if words not in printed] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_with_the_outputs_of_one_run_from_top_to_bottom(name):
    path = ROOT / "notebooks" / name
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert text_of(notebook, "stderr") == ""
    printed = text_of(notebook, "stdout")
    assert [words for words in NOTEBOOKS[name] if words not in printed] == []
    assert path.stat().st_size < 600_000


def test_the_quickstart_has_ten_cells():
    notebook = nbformat.read(ROOT / "notebooks" / "00-quickstart.ipynb", as_version=4)
    assert len(notebook.cells) == 10


def text_of(notebook, stream):
    """Return what all cells have written to stdout or stderr."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not any(output.output_type == "error" for output in outputs)
    return "".join(output.text for output in outputs if output.get("name") == stream)
