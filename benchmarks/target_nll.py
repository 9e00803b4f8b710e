"""Time the way to a negative log predictive density of held-out images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from harness import Case, Options, Row, emit, limit_threads, options_of, parser
from problems import Problem, made_images, read_images
from summary import S, failure, pooled, ratio, select, significant, spread_cells, table

TITLE = "Time to a given test NLL"
CAPTION = """\
Seconds until the mean negative log predictive density of {n_test} held-out images ({data}) is at
most {target} nats, for the network 784-400-400-10, {n_rows} images in batches of 128, the prior
Normal({prior_scale}), Adam at a learning rate of {lr}, one draw per step. All start at the same
weights and take the same kind of steps; each is evaluated after every epoch with {n_draws} draws.
The time includes compilation, but neither evaluation nor imports. Median and quartiles over
rounds; one library per process, in alternation. For pyrobbb a first fit determines the number of
epochs, and a second one with that number is timed."""
WIDTHS, BATCH_SIZE, PRIOR_SCALE, LR, N_DRAWS = (784, 400, 400, 10), 128, 0.1, 3e-4, 16
N_TRAIN, N_TEST, N_EPOCHS = 60_000, 10_000, 8
TARGETS = {"MNIST": 0.12, "made": 0.43}
WAYS = {
    "pyrobbb-auto": "pyrobbb, auto",
    "pyrobbb-fused": "pyrobbb, fused",
    "by-hand": "loop by hand",
    "numpyro-scan": "NumPyro, scan per epoch",
    "pyro": "Pyro SVI",
}
RATIOS = [
    ("pyro", "pyrobbb-auto"),
    ("by-hand", "pyrobbb-auto"),
    ("numpyro-scan", "pyrobbb-auto"),
    ("pyro", "pyrobbb-fused"),
]
MAX_ROUNDS = 3


def cases(options: Options) -> list[Case]:
    """List what is timed."""
    return [Case({"peer": way}) for way in WAYS]


def measure(way: str, target: float | None, threads: int | None, options: Options) -> Iterator[Row]:
    """Fit by one library, and say when it had reached the target."""
    n_threads = limit_threads(threads, "jax" if way == "numpyro-scan" else "torch")
    problem, x_test, y_test = _problem(options)
    data = "made" if options.data is None else "MNIST"
    target = TARGETS[data] if target is None else target
    n_epochs = 2 if options.quick else N_EPOCHS
    if way.startswith("pyrobbb-"):
        row = fit(problem, x_test, y_test, target, n_epochs, way.removeprefix("pyrobbb-"))
    else:
        row = learn(problem, x_test, y_test, target, n_epochs, way)
    yield {
        **row,
        "data": data,
        "target": target,
        "n_rows": len(problem.x),
        "n_test": len(x_test),
        "n_threads": n_threads,
    }


def learn(
    problem: Problem,
    x_test: np.ndarray,
    y_test: np.ndarray,
    target: float,
    n_epochs: int,
    way: str,
) -> Row:
    """Run a library that is stepped from here: posteriors are kept, and looked at afterwards."""
    from peers import PEERS

    learner = PEERS[way].load()(problem, LR)
    epochs = np.split(problem.batches(n_epochs), n_epochs)
    elapsed, at, kept = 0.0, [], []
    for rows in epochs:
        started = time.perf_counter()
        if way == "numpyro-scan":
            learner.steps(rows)
        else:
            for batch in rows:
                learner.step(*learner.batch(batch))
        elapsed += time.perf_counter() - started
        at.append(elapsed)
        kept.append(learner.weights())
    nll = [predictive_nll(weights, x_test, y_test) for weights in kept]
    epochs_to_target = _first(nll, target)
    seconds = None if epochs_to_target is None else at[epochs_to_target - 1]
    return {"seconds": seconds, "epochs": epochs_to_target, "nll": nll, "at": at}


def fit(
    problem: Problem,
    x_test: np.ndarray,
    y_test: np.ndarray,
    target: float,
    n_epochs: int,
    engine: str,
) -> Row:
    """Run pyrobbb's public `fit`: once to see how many epochs it takes, once to time these."""
    from peers.pyrobbb_fit import fit_problem

    watched = fit_problem(
        problem, lr=LR, epochs=n_epochs, engine=engine, validation=(x_test, y_test)
    )
    nll = watched.history.validation_nll.tolist()
    row: Row = {"seconds": None, "epochs": _first(nll, target), "nll": nll}
    if row["epochs"] is not None:
        started = time.perf_counter()
        posterior = fit_problem(problem, lr=LR, epochs=row["epochs"], engine=engine)
        row["seconds"] = time.perf_counter() - started
        row["engine"] = posterior.settings["engine"]
        log_prob = posterior.predict(x_test, n_draws=N_DRAWS, seed=0).log_prob(y_test)
        row["nll_of_timed_fit"] = -float(log_prob.mean())
    return row


def predictive_nll(weights: list[Any], x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean negative log predictive density under draws of all layers' weights.

    Parameters
    ----------
    weights : list of peers.Weights
    x : ndarray of shape (n, n_in)
    y : ndarray of shape (n,)
        Labels.
    """
    rng = np.random.default_rng(0)  # the same noise for all, so that they are comparable
    log_probs = []
    for _ in range(N_DRAWS):
        output = x
        for i, layer in enumerate(weights):
            weight = layer.weight + layer.weight_scale * _noise(rng, layer.weight.shape)
            bias = layer.bias + layer.bias_scale * _noise(rng, layer.bias.shape)
            output = output @ weight.T + bias
            if i < len(weights) - 1:
                output = np.maximum(output, 0)
        log_norm = np.logaddexp.reduce(output.astype(float), axis=1)
        log_probs.append(output[np.arange(len(y)), y] - log_norm)
    return float(np.log(N_DRAWS) - np.logaddexp.reduce(log_probs, axis=0).mean())


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _first(nll: list[float], target: float) -> int | None:
    return next((i + 1 for i, value in enumerate(nll) if value <= target), None)


def _problem(options: Options) -> tuple[Problem, np.ndarray, np.ndarray]:
    n_train, n_test = (1_000, 200) if options.quick else (N_TRAIN, N_TEST)
    if options.data is None:
        x, y = made_images(n_train + n_test)
        x, x_test, y, y_test = x[:n_train], x[n_train:], y[:n_train], y[n_train:]
    else:
        x, y = read_images(options.data, "train", n_train)
        x_test, y_test = read_images(options.data, "test", n_test)
    problem = Problem(WIDTHS, "classification", BATCH_SIZE, len(x), x, y, prior_scale=PRIOR_SCALE)
    return problem, x_test, y_test


def section(rows: list[Row]) -> str:
    """Write the tables."""
    found = {way: select(rows, peer=way) for way in WAYS}
    lines = []
    for way, group in sorted(found.items(), key=lambda item: _middle(item[1])):
        label = WAYS[way]
        curve = next((row["nll"] for row in group if "nll" in row), None)
        if way == "pyrobbb-auto" and pooled(group):
            label += f" (took {group[0]['engine']})"
        if pooled(group):
            epochs = f"{median(pooled(group, of='epochs')):.0f}"
            lines.append(
                [label, *spread_cells(pooled(group), S), epochs, significant(min(curve or [0]))]
            )
        elif curve:
            lines.append([label, "not reached", "", "", significant(min(curve))])
        else:
            lines.append([label, failure(group), "", "", ""])
    ratios = [
        [f"{WAYS[above]} / {WAYS[below]}", ratio(found[above], found[below])]
        for above, below in RATIOS
    ]
    n_epochs = max((len(row["nll"]) for row in rows if "nll" in row), default=N_EPOCHS)
    head = ["", "median, s", "quartiles, s", "epochs", f"lowest NLL in {n_epochs} epochs"]
    return f"{table(head, lines)}\n\n{table(['', 'ratio (rounds)'], ratios)}"


def caption(rows: list[Row]) -> str:
    """Return the caption."""
    first = next((row for row in rows if "target" in row), {})
    return CAPTION.format(
        data="MNIST" if first.get("data") == "MNIST" else "simulated by a random network",
        target=first.get("target", "?"),
        n_rows=f"{first.get('n_rows', 0):,}",
        n_test=f"{first.get('n_test', 0):,}",
        prior_scale=PRIOR_SCALE,
        lr=LR,
        n_draws=N_DRAWS,
    )


def _middle(group: list[Row]) -> float:
    return median(pooled(group)) if pooled(group) else float("inf")


def main() -> None:
    """Time one library."""
    arguments = parser(__doc__)
    arguments.add_argument("--peer", choices=WAYS, required=True)
    arguments.add_argument("--target", type=float, help="test NLL, in nats")
    arguments.add_argument("--threads", type=int, help="default: as the library likes")
    given = arguments.parse_args()
    emit(lambda: measure(given.peer, given.target, given.threads, options_of(given)))


if __name__ == "__main__":
    main()
