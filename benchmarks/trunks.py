"""Time last layers of a network with a frozen trunk of 100 M weights, and measure the memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

import torch
from torch import nn

import pyrobbb
from harness import Case, Options, Row, emit, options_of, parser
from summary import MS, failure, pooled, ratio, select, significant, spread_cells, table

TITLE = "Trunks"
CAPTION = """\
A frozen trunk of linear layers (24 of 2,048 units: 100 M weights) and a Bayesian last layer of 10
outputs. Milliseconds of a step of a fit in batches of 128 rows, with the trunk and on its cached
outputs; of a prediction of 512 rows with 200 draws, and of one forward pass of the trunk on them.
Memory: the peak of a process with a fit, less what it held before it made the trunk, in sizes of
the trunk."""
WAYS = {
    "trunk": "step of a fit, with the trunk",
    "cached": "step of a fit, on cached features",
    "predict": "prediction, 200 draws",
    "forward": "forward pass of the trunk",
    "memory": "memory of a fit",
}
BATCH = 128


def cases(options: Options) -> list[Case]:
    """List what is measured."""
    return [Case({"what": way}) for way in WAYS if way != "forward"]  # in turns with predictions


def measure(way: str, options: Options) -> Iterator[Row]:
    """Measure one way in this process."""
    width, depth = (64, 3) if options.quick else (2048, 24)
    if way == "memory":
        yield {"trunks": [_memory(width, depth)]}
        return
    network = _network(width, depth)
    x, y = torch.randn(512, width), torch.randn(512, 10)
    if way == "predict":
        posterior = _fit(network, x, y, 1, cache_features=True)
        ways = {
            "predict": lambda: posterior.predict(x, n_draws=200, seed=0).mean,
            "forward": torch.no_grad()(lambda: network.net[0](x)),
        }
        for what, seconds in _times_in_turns(ways, 1 if options.quick else 5).items():
            yield {"what": what, "seconds": seconds}
        return
    is_cached = way == "cached"
    n_epochs = (1, 2) if options.quick else (2, 502) if is_cached else (1, 4)
    took = []
    for epochs in n_epochs:  # the difference leaves out the preparation
        start = time.perf_counter()
        _fit(network, x, y, epochs, cache_features=is_cached)
        took.append(time.perf_counter() - start)
    n_steps = (n_epochs[1] - n_epochs[0]) * len(x) // BATCH
    yield {"seconds": [max(took[1] - took[0], 1e-9) / n_steps]}


def _network(width: int, depth: int) -> pyrobbb.BayesianNetwork:
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())]
    trunk = nn.Sequential(*layers).requires_grad_(False)
    prior = pyrobbb.priors.ByName({"1.*": pyrobbb.priors.Normal(0.1)}, default=None)
    return pyrobbb.BayesianNetwork(nn.Sequential(trunk, nn.Linear(width, 10)), prior)


def _fit(network: Any, x: Any, y: Any, epochs: int, **options: Any) -> pyrobbb.Posterior:
    return pyrobbb.fit(
        network, x, y, epochs=epochs, batch_size=BATCH, engine="fused", progress=False, **options
    )


def _memory(width: int, depth: int) -> float:
    """Return the peak of memory of a fit, in sizes of the trunk."""
    x, y = torch.randn(512, width), torch.randn(512, 10)
    _fit(_network(64, 1), x[:, :64], y, 1)  # loads what a fit needs
    before = _peak()
    network = _network(width, depth)
    size = sum(p.numel() * p.element_size() for p in network.net[0].parameters())
    _fit(network, x, y, 1)
    return (_peak() - before) / size


def _peak() -> float:
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux


def _times_in_turns(ways: Mapping[str, Callable[[], Any]], n: int) -> dict[str, list[float]]:
    """Return the seconds of some calls of each way, after one that is not timed.

    What slows the machine down for a while slows all of them.
    """
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(n + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if turn:
                took[name].append(time.perf_counter() - start)
    return took


def section(rows: list[Row]) -> str:
    """Write the table."""
    found = {way: select(rows, what=way) for way in WAYS}
    lines = []
    for way, label in WAYS.items():
        if way == "memory":
            continue
        group = found[way]
        cells = spread_cells(pooled(group), MS) if pooled(group) else [failure(group), ""]
        lines.append([label, *cells])
    sizes = pooled(found["memory"], "trunks")
    memory = f"{significant(median(sizes))} times the trunk" if sizes else "not measured"
    words = (
        f"A step with the trunk takes {ratio(found['trunk'], found['cached'])} times as long as on "
        f"cached features; the prediction {ratio(found['predict'], found['forward'])} times as "
        f"long as a forward pass of the trunk. The memory of a fit is {memory}."
    )
    return f"{table(['', 'median, ms', 'quartiles, ms'], lines)}\n\n{words}"


def main() -> None:
    """Measure one way."""
    arguments = parser(__doc__)
    arguments.add_argument("--what", choices=WAYS, required=True)
    given = arguments.parse_args()
    emit(lambda: measure(given.what, options_of(given)))


if __name__ == "__main__":
    main()
