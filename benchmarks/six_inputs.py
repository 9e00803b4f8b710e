"""A smooth function of six inputs, three of them without effect, of which few rows are known.

python benchmarks/six_inputs.py        # mean log density of test rows, ten draws of the data
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

from uci_models import Model, Score, bbb, gaussian_process

N_ROWS, N_TEST, N_INPUTS, NOISE, N_DRAWS = 97, 1000, 6, 0.2, 10
INPUTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-2, 2, size=shape),
}


def draw(seed: int, inputs: str, n_rows: int = N_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of y = sin(2 x_1) + x_2 x_3 / 2 + noise of standard deviation 0.2."""
    rng = np.random.default_rng(seed)
    x = INPUTS[inputs](rng, (n_rows, N_INPUTS))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] / 2 + NOISE * rng.normal(size=n_rows)
    return x, y


MODELS: dict[str, Model] = {
    "BBBRegressor()": bbb(),
    "BBBRegressor(ard=False, restarts=4)": bbb(ard=False, restarts=4),
    'BBBRegressor(activation="gelu")': bbb(activation="gelu"),
    "GaussianProcess": gaussian_process,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the mean log density of the models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--draws", type=int, default=N_DRAWS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for inputs in options.inputs:
        for name in options.models:
            start = time.perf_counter()
            found = [score(MODELS[name], seed, inputs).log_lik for seed in range(options.draws)]
            row = {"inputs": inputs, "model": name, "log_density": float(np.mean(found))}
            row["sd_over_draws"] = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
            print(json.dumps({**row, "seconds": time.perf_counter() - start}), flush=True)
    return 0


def score(model: Model, seed: int, inputs: str) -> Score:
    """Fit a model to one draw of the data, and score it on new rows."""
    x, y = draw(seed, inputs, N_ROWS + N_TEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(x[:N_ROWS], y[:N_ROWS], x[N_ROWS:], y[N_ROWS:], seed)


if __name__ == "__main__":
    sys.exit(main())
