"""Cached features in a folder, and files that run through the trunk chunk by chunk."""

import numpy as np
import pytest
import torch
from torch import nn

from pyrobbb import BayesianNetwork, fit, priors
from pyrobbb.streams import Parquet
from pyrobbb.training import cached_features

N = 23
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype("f")
Y = X.sum(1, keepdims=True) + RNG.normal(size=(N, 1)).astype("f")
HEAD = priors.ByName({"head.*": priors.Normal(1.0)}, default=None)


class Trunk(nn.Module):
    """Layers that note how many rows they are called with."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh())
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return self.layers(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = Trunk(), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.trunk(x))


class Masked(Net):
    """Of x and a mask, which the head uses too."""

    def forward(self, x, mask):
        return self.head(self.trunk(x * mask) * mask[:, :1])


def network_of(make=Net):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().eval()
    net.trunk.requires_grad_(False)
    return BayesianNetwork(net, HEAD)


def quick(network, x, y=Y, **options):
    return fit(network, x, y, **{"epochs": 3, "batch_size": 10, "seed": 1, **options})


def mapped(folder, array, name="x"):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def parquet(folder):
    arrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {name: X[:, i] for i, name in enumerate("abc")} | {"y": Y[:, 0]}
    tables.write_table(arrow.table(columns), folder / "x.parquet", row_group_size=9)
    return Parquet(folder / "x.parquet", target=["y"])


@pytest.fixture
def chunks_of_four(monkeypatch):
    monkeypatch.setattr(cached_features, "ROWS_PER_CALL", 4)


@pytest.mark.parametrize("kind", ["array", "memory-mapped", "parquet"])
@pytest.mark.parametrize("in_folder", [True, False])
def test_the_fit_is_that_of_the_whole_network(kind, in_folder, tmp_path, chunks_of_four):
    x = {"array": lambda: X, "memory-mapped": lambda: mapped(tmp_path, X)}.get(
        kind, lambda: parquet(tmp_path)
    )()
    # Files are read in an order of their own, and so are features in files.
    same = mapped(tmp_path, X, "same") if in_folder else X
    whole = quick(network_of(), same)
    y = None if kind == "parquet" else Y
    cached = quick(network_of(), x, y, cache_features=tmp_path / "features" if in_folder else True)
    for name in ("nll", "kl"):
        ours, expected = getattr(cached.history, name), getattr(whole.history, name)
        np.testing.assert_allclose(ours, expected, rtol=1e-4)
    ours, expected = (fitted.predict(X, seed=0).mean for fitted in (cached, whole))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def test_the_file_holds_the_features_and_further_fits_use_it_again(tmp_path, chunks_of_four):
    x, network = mapped(tmp_path, X), network_of()
    quick(network, x, cache_features=str(tmp_path / "deep" / "features"))
    (file,) = (tmp_path / "deep" / "features").iterdir()
    with torch.no_grad():
        expected = network.net.trunk(torch.tensor(X)).numpy()
    np.testing.assert_allclose(np.load(file), expected, rtol=1e-5, atol=1e-6)
    written = file.stat().st_mtime_ns
    rows = rows_of_calls(network, x, tmp_path)
    assert sum(rows) < 2 * N  # only trials and the rows that tell files apart
    assert file.stat().st_mtime_ns == written


def rows_of_calls(network, x, tmp_path, y=Y):
    """Return with how many rows a fit calls the trunk."""
    calls = []
    handle = network.net.trunk.layers.register_forward_pre_hook(
        lambda _, args: calls.append(len(args[0]))
    )
    quick(network, x, y, cache_features=tmp_path / "deep" / "features")
    handle.remove()
    return calls


def test_files_run_through_the_trunk_chunk_by_chunk(tmp_path, chunks_of_four):
    calls = rows_of_calls(network_of(), mapped(tmp_path, X), tmp_path)
    assert max(calls) <= 4
    assert sum(calls) >= N


@pytest.mark.parametrize("changed", ["x", "weight", "code", "nothing"])
def test_other_rows_or_another_trunk_have_another_file(changed, tmp_path):
    x, network = X.copy(), network_of()
    quick(network, x, cache_features=tmp_path)
    if changed == "x":
        x[20, 1] += 1  # none of the rows whose features tell files apart
    elif changed == "weight":
        with torch.no_grad():
            network.net.trunk.layers[0].weight[2, 1] += 1
    elif changed == "code":
        network.net.trunk.layers[1] = nn.GELU()
    quick(network, x, cache_features=tmp_path)
    assert len(list(tmp_path.iterdir())) == (1 if changed == "nothing" else 2)


def test_a_fit_that_fails_leaves_no_file(tmp_path, chunks_of_four):
    broken = X.copy()
    broken[17, 2] = np.nan
    with pytest.raises(ValueError, match=r"rows 16 to 19 of x: `x` .*NaN"):
        quick(network_of(), mapped(tmp_path, broken), cache_features=tmp_path / "features")
    assert list((tmp_path / "features").iterdir()) == []


def test_a_damaged_file_is_refused(tmp_path):
    quick(network_of(), X, cache_features=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"has the damaged file '.*features-.*delete it"):
        quick(network_of(), X, cache_features=tmp_path)


def test_what_is_no_folder_is_refused_before_the_trunk_runs(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "inner"):
        with pytest.raises(ValueError, match=r"must be the path of a folder for files, got .*\("):
            quick(network_of(), X, cache_features=path)
    with pytest.raises(TypeError, match="True, False or the path of a folder, got int"):
        quick(network_of(), X, cache_features=3)


@pytest.mark.parametrize(
    "options", [{"restarts": 2}, {"sample_weight": np.ones(N)}, {"rows": [np.arange(5)]}]
)
def test_what_needs_all_rows_in_memory_is_refused_before_the_trunk_runs(options, tmp_path):
    name = next(iter(options))
    message = f"`{name}` needs x and y in memory, but `cache_features` is the path of a folder: "
    with pytest.raises(ValueError, match=message):
        quick(network_of(), X, cache_features=tmp_path / "features", **options)
    assert not (tmp_path / "features").exists()


def test_a_mask_that_differs_in_one_row_of_a_file_is_seen(tmp_path, chunks_of_four):
    mask = np.ones_like(X)
    x = [mapped(tmp_path, X), mapped(tmp_path, mask, "mask")]
    quick(network_of(Masked), tuple(x), cache_features=True)  # cannot be told from ones
    mask[10] = 0
    x[1] = mapped(tmp_path, mask, "mask")
    with pytest.raises(ValueError, match="`cache_features` needs a frozen trunk"):
        quick(network_of(Masked), tuple(x), cache_features=True)


def test_an_interrupted_fit_continues_on_the_same_features(tmp_path):
    options = {"cache_features": tmp_path / "features", "checkpoint": tmp_path / "fit"}
    half = quick(network_of(), X, epochs=2, every=1, callbacks=interrupt, **options)
    assert len(half.history.nll) < 12
    resumed = quick(network_of(), X, epochs=4, callbacks=(), **options)
    straight = quick(network_of(), X, epochs=4, cache_features=tmp_path / "features")
    assert resumed.guide.loc.equal(straight.guide.loc)


def interrupt(end):
    if end.epoch == 1:
        raise KeyboardInterrupt
