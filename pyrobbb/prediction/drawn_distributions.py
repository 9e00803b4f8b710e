"""The distributions of y under many draws of the weights, in bounded memory."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from .._core.arrays import supports_float64
from .._core.global_state import ordinary_modes, without_validation
from .._core.random_state import child_seed, seeded
from .._core.trees import Inputs, arrays_of, n_rows, rows_of, split
from ..model.functional import FunctionalCall
from ..model.head import head_network, split_of
from ..model.inputs import form_of
from ..model.network import BayesianNetwork
from ..model.trial import Traits, explained
from ..model.trunk import Split
from .sampling import Draws, FixedDraws, Source, join
from .working_memory import bytes_per_row, features_and_bytes_per_row

logger = logging.getLogger(__name__)

WORKING_MEMORY = 2**30
"""Default bound, in bytes, on the memory of a prediction beyond its inputs and results."""

MAX_ROWS_PER_CALL = 512
TILE_BYTES = 2**24
"""Bounds on the rows and on the bytes of activations of one call of the network: small enough for
a processor's cache, large enough for fast matrix products."""

NOISE = 2**20
"""Number of the seed of the noise that a network draws in its forward pass."""

_TRAITS: WeakKeyDictionary[BayesianNetwork, Traits] = WeakKeyDictionary()
_BYTES: WeakKeyDictionary[BayesianNetwork, dict[Hashable, tuple[int, int, int]]] = (
    WeakKeyDictionary()
)


class DrawnDistributions:
    """The distributions of y under many draws of the weights, as an iterable of chunks of rows.

    They are cached if they fit into a quarter of the memory bound, and recomputed in each pass
    otherwise. If the rows of an output depend on each other, or are random, all rows are run at
    once, whatever the bound.

    Parameters
    ----------
    sources : sequence of Source or FixedDraws
        Of networks with the same structure, in evaluation mode. Their draws are concatenated.
    x : Inputs of shape (n, ...)
    max_memory : int
        Bound, in bytes, on the working memory beyond x and the results.

    Attributes
    ----------
    n_draws, n_rows : int
    mixes_rows : bool
        Whether the output for a row depends on the other rows.
    """

    def __init__(
        self, sources: Sequence[Source | FixedDraws], x: Inputs, *, max_memory: int
    ) -> None:
        self._sources, self._x = tuple(sources), x
        n = self.n_rows = n_rows(x)
        self.n_draws = n_draws = sum(source.n_draws for source in sources)
        network = self._network = sources[0].network
        weights = dict(network.bayesian_parameters())
        per_draw = sum(p.numel() * p.element_size() for p in weights.values())
        self._traits = _traits_of(network, x)
        self.mixes_rows = self._traits.mixes_rows
        self._example = x if self.mixes_rows else rows_of(x, slice(1))
        self._splits: list[Split | None] = [None] * len(self._sources)
        if not (self.mixes_rows or self._traits.draws_numbers):
            self._splits = [split_of(source.network, x) for source in self._sources]
        # A quarter of the bound for each: cached draws, activations of a block, outputs of a chunk
        # (quantiles need a few arrays of that size), and cached distributions. The trunk runs while
        # no block does.
        quarter = max_memory // 4
        per_trunk_row, per_row, per_output = _bytes_of(network, self._splits[0], self._example)
        self._trunk_rows = min(max(quarter // (per_trunk_row or per_row), 1), MAX_ROWS_PER_CALL)
        self._cached_draws: list[Draws] | None = None
        latents = []
        if n_draws * per_draw <= quarter:
            all_draws = [join(source.draws(self._example), source.n_draws) for source in sources]
            self._cached_draws = [
                {n: v for n, v in draws.items() if n in weights} for draws in all_draws
            ]
            latents = [network.latents_of(draws) for draws in all_draws]
        else:
            for source in sources:
                latents += [network.latents_of(block) for block in source.draws(self._example)]
        self._latents = join(latents, n_draws)
        self._rows_per_chunk = int(min(max(quarter // (16 * n_draws * per_output), 1), n))
        tile = min(quarter // 4, TILE_BYTES)
        self._rows_per_call = min(max(tile // per_row, 1), MAX_ROWS_PER_CALL, self._rows_per_chunk)
        if self.mixes_rows or self._traits.draws_numbers:
            self._rows_per_chunk = self._rows_per_call = n
            needed = n * max(16 * n_draws * per_output, 4 * per_row)
            if needed > quarter:
                logger.info(
                    "Each draw takes all %d rows at once, because the network %s: about %.2g GiB, "
                    "more than `max_memory`.",
                    n,
                    "draws random numbers" if self._traits.draws_numbers else "mixes them",
                    4 * needed / 2**30,
                )
        self._draws_per_call = int(min(max(tile // (self._rows_per_call * per_row), 1), n_draws))
        self._keeps_all = n_draws * n * per_output <= quarter
        self._cached: dict[int, TorchDistribution] = {}

    def __iter__(self) -> Iterator[TorchDistribution]:
        """Yield a distribution of batch shape (n_draws, n_rows) for each chunk of rows."""
        for i, rows in enumerate(split(self._x, self._rows_per_chunk)):
            distribution = self._cached.get(i)
            if distribution is None:
                distribution = self._compute(rows)
                if self._keeps_all or i == 0:  # the first determines the type of prediction
                    self._cached[i] = distribution
            yield distribution

    def _compute(self, rows: Inputs) -> TorchDistribution:
        network = self._network
        with (
            ordinary_modes(grad=False),
            without_validation(),
            explained(network.net, self._x, network.select),
        ):
            outputs = ({"": output} for output in self._outputs(rows))
            output, latents = join(outputs, self.n_draws)[""], self._latents
            if not supports_float64(output.device):  # needed for moments and quantiles
                output, latents = output.cpu(), {n: v.cpu() for n, v in latents.items()}
            return network.distribution(output, latents)

    def _outputs(self, rows: Inputs) -> Iterator[Tensor]:
        """Yield the outputs of some draws at a time, in order."""
        seen: list[tuple[Split, Tensor]] = []
        for i, source in enumerate(self._sources):
            cached = self._cached_draws
            blocks = source.draws(self._example) if cached is None else [cached[i]]
            if self._traits.draws_numbers:
                yield from _outputs_with_noise(source.network, blocks, rows, source.seed)
                continue
            network, inputs = source.network, rows
            if (split := self._splits[i]) is not None:
                network, inputs = head_network(network, split), self._features(split, rows, seen)
            for block in blocks:
                for start in range(0, len(next(iter(block.values()))), self._draws_per_call):
                    here = slice(start, start + self._draws_per_call)
                    part = {name: value[here] for name, value in block.items()}
                    yield network.output(part, inputs, rows_at_once=self._rows_per_call)

    def _features(self, split: Split, rows: Inputs, seen: list[tuple[Split, Tensor]]) -> Tensor:
        """Return the features of some rows, which chains with the same trunk share."""
        for other, features in seen:
            if split.has_trunk_of(other):
                return features
        features = split.features(rows, rows_at_once=self._trunk_rows)
        seen.append((split, features))
        return features


def _outputs_with_noise(
    network: BayesianNetwork, blocks: Iterable[Draws], rows: Inputs, seed: int
) -> Iterator[Tensor]:
    """Yield the output of each draw, with noise of its own from the seed and its number."""
    names = [name for name, _ in network.bayesian_parameters()]
    call = FunctionalCall(network.net, names, select=network.select)
    number = itertools.count()
    for block in blocks:
        for i in range(len(block[names[0]])):
            with seeded(child_seed(child_seed(seed, NOISE), next(number))):
                output = call({name: block[name][i] for name in names}, rows)
            yield output[None]


def _bytes_of(
    network: BayesianNetwork, split: Split | None, example: Inputs
) -> tuple[int, int, int]:
    """Return the bytes of a row: of the trunk, of a draw, and of its output.

    For each form of rows the network is run only the first time: a run on one row reads all weights
    of a trunk.
    """
    form = id(network.net), form_of(example)
    known = _BYTES.setdefault(network, {})
    if form not in known:
        per_trunk_row, inputs, net = 0, example, network.net
        if split is not None:
            net = split.head
            inputs, per_trunk_row = features_and_bytes_per_row(split, example)
        known[form] = (per_trunk_row, *bytes_per_row(net, inputs, network.select))
    return known[form]


def _traits_of(network: BayesianNetwork, x: Inputs) -> Traits:
    """Return what is known of a network, which is run on x only the first time."""
    traits = _TRAITS.get(network)
    if traits is None:
        traits = network.traits(x)
        # Equal rows do not show that they interact.
        if any(bool((array != array[:1]).any()) for array in arrays_of(x)):
            _TRAITS[network] = traits
    return traits
