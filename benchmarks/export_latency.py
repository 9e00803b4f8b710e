"""Time predictions of an estimator and of its exported programs, with one thread."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from sklearn.datasets import load_diabetes

from pyrobbb import BBBRegressor

REPEATS = 5


def milliseconds(run: Callable[[], Any]) -> float:
    """Return the median time of a call."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def main() -> None:
    """Print a row of a table for each way to predict."""
    torch.set_num_threads(1)
    x, y = load_diabetes(return_X_y=True)
    model = BBBRegressor(likelihood="heteroscedastic", epochs=200, random_state=0).fit(x, y)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("model.pt2", "model.onnx")]
        for file in files:
            model.export(file)
        program: Any = torch.export.load(files[0]).module()
        session = onnxruntime.InferenceSession(files[1], options)
        model.export(files[1], quantiles=())
        moments = onnxruntime.InferenceSession(files[1], options)
        print(f"{[file.stat().st_size // 1024 for file in files]} KiB")

    def predict(rows: np.ndarray) -> None:
        prediction = model.predict_distribution(rows)
        _ = prediction.mean, prediction.epistemic_sd, prediction.quantile([0.05, 0.5, 0.95])

    ways: dict[str, Callable[[np.ndarray], Any]] = {
        "predict": predict,
        "torch": lambda rows: program(torch.from_numpy(rows)),
        "onnxruntime": lambda rows: session.run(None, {"x": rows}),
        "onnxruntime, 32 rows at a time": lambda rows: [
            session.run(None, {"x": rows[i : i + 32]}) for i in range(0, len(rows), 32)
        ],
        "onnxruntime, without quantiles": lambda rows: moments.run(None, {"x": rows}),
    }
    for name, run in ways.items():
        one, thousand = (milliseconds(partial(run, np.resize(x, (n, 10)))) for n in (1, 1000))
        print(f"| {name} | {one:.1f} ms | {thousand:.0f} ms |")


if __name__ == "__main__":
    main()
