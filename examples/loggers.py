"""Log a fit to TensorBoard, MLflow or a file of JSON lines with callbacks.

pyrobbb depends on none of them. `fit(callbacks=...)` takes any function of an `EpochEnd`, whose
`metrics()` returns a dict of numbers.
"""

import argparse
import json
import logging
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pyrobbb import BayesianNetwork, fit, mlp


def to_json_lines(path):
    """Write one line per epoch, to be read by `pandas.read_json(path, lines=True)`."""

    def log(end):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(end.metrics()) + "\n")

    return log


def to_tensorboard(folder):
    """Write event files, to be shown by `tensorboard --logdir folder`."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def log(end):
        for name, value in end.metrics().items():
            writer.add_scalar(f"fit/{name}", value, end.epoch)
        writer.add_histogram("guide/scale", end.posterior().guide.scale.detach().cpu(), end.epoch)
        writer.flush()

    return log


def to_mlflow():
    """Log to the active MLflow run, or to a new one."""
    import mlflow

    return lambda end: mlflow.log_metrics(end.metrics(), step=end.epoch)


def main(epochs=200):
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("pyrobbb").setLevel(logging.INFO)  # one line for each stage of the fit

    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (200, 1))
    y = np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)

    with tempfile.TemporaryDirectory() as folder, ExitStack() as run:
        lines = Path(folder) / "fit.jsonl"
        callbacks = [to_json_lines(lines)]
        if find_spec("tensorboard"):
            callbacks.append(to_tensorboard(f"{folder}/tensorboard"))
        else:
            print("TensorBoard is skipped: tensorboard is not installed.")
        if find_spec("mlflow") and find_spec("sqlalchemy"):
            import mlflow

            mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
            run.enter_context(mlflow.start_run())
            callbacks.append(to_mlflow())
        else:
            print("MLflow is skipped: mlflow or sqlalchemy is not installed.")

        network = BayesianNetwork(mlp(1, [20], 1, seed=0))
        fit(network, x, y, epochs=epochs, callbacks=callbacks, seed=0, progress=False)
        written = lines.read_text(encoding="utf-8").splitlines()
        print(f"{len(written)} lines of JSON, the last one:")
        print(json.dumps(json.loads(written[-1]), indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(epochs=10 if parser.parse_args().quick else 200)
