"""Tuples and mappings of arrays through the API, held against the same columns as one array.

The networks of `structured` compute the same for each form, so that results are bitwise equal.
"""

import functools
import json
import re

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from structured import FORMS, arranged, joined, network_of
from support import Crash, X, Y, assert_equal, assert_same_fit, crash_at, quick_fit
from torch.utils.data import DataLoader, Dataset, IterableDataset

import pyrobbb
from pyrobbb import MeanFieldGuide, Posterior, compare_with_nuts, crosscheck, fit, sbc, update
from pyrobbb.prediction import drawn_distributions
from pyrobbb.training import stream_batches

MORE = np.random.default_rng(1).normal(size=(41, 3))


@functools.cache
def posterior_of(form=None, **options):
    """Return a fit to a form, or to one array."""
    if form is None:
        return quick_fit(joined(), **options)
    return quick_fit(network_of(form), arranged(form, X), **options)


def assert_same_predictions(posterior, x, expected, x_joined, **options):
    one, other = (
        posterior.predict(x, 20, 1, **options),
        expected.predict(x_joined, 20, 1, **options),
    )
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.quantile(0.9), other.quantile(0.9))
    y = x_joined.sum(1, keepdims=True)
    np.testing.assert_array_equal(one.log_prob(y), other.log_prob(y))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_fit_and_its_predictions_are_those_of_one_array(form, engine):
    posterior, expected = posterior_of(form, engine=engine), posterior_of(engine=engine)
    assert_same_fit(posterior, expected)
    assert_same_predictions(posterior, arranged(form, MORE), expected, MORE)


def test_compiled_steps_are_those_of_one_array():
    posterior = posterior_of("keywords", engine="compiled")
    assert posterior.settings.engine == "compiled"
    assert_same_fit(posterior, posterior_of(), rtol=1e-10)


OPTIONS = {
    "draws per row": {"estimator": "local"},
    "flipout": {"estimator": "flipout"},
    "particles": {"n_particles": 2},
    "particles of chains": {"n_particles": 2, "restarts": 2},
    "weights": {"sample_weight": np.linspace(0.1, 2, 23)},
    "weighted chains": {"sample_weight": np.linspace(0.1, 2, 23), "restarts": 2},
    "rows": {"rows": [np.arange(10), np.arange(5, 15)], "restarts": 2},
    "all rows of chains": {"batch_size": 23, "restarts": 2},
    "mode": {"init": "map"},
    "low rank": {"guide": "low_rank"},
    "AutoNormal": {"guide": "auto_normal"},
    "AutoNormal, particles": {"guide": "auto_normal", "n_particles": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_fit_with_options_is_that_of_one_array(name):
    form = "a mapping"
    posterior = quick_fit(network_of(form), arranged(form, X), **OPTIONS[name])
    assert_same_fit(posterior, quick_fit(joined(), **OPTIONS[name]))


@pytest.mark.parametrize("form", ["keywords", "a tuple"])
def test_validation_of_float32_tensors_is_that_of_one_array(form):
    def fitted(network, arrange):
        x, new = (arrange(torch.tensor(values)) for values in (X, MORE))
        y = MORE.sum(1, keepdims=True)
        network = network.float()
        return fit(network, x, Y, validation=(new, y), epochs=4, seed=1, progress=False)

    posterior = fitted(network_of(form), lambda x: arranged(form, x))
    expected = fitted(joined(), lambda x: x)
    assert_same_fit(posterior, expected)
    np.testing.assert_array_equal(posterior.history.validation_nll, expected.history.validation_nll)
    assert torch.is_tensor(posterior.predict(arranged(form, torch.tensor(X)), 5, 1).mean)


def test_predictions_in_chunks_are_those_of_one_array(monkeypatch):
    monkeypatch.setattr(drawn_distributions, "MAX_ROWS_PER_CALL", 3)
    posterior, expected = posterior_of("a named output"), posterior_of()
    x = arranged("a named output", MORE)
    assert_same_predictions(posterior, x, expected, MORE, max_memory=20_000)
    for options in ({"rows": 7}, {"rows": 7, "shard": (1, 3)}, {"max_memory": 3000}):
        pairs = zip(
            posterior.predict_chunks(x, 20, 1, **options),
            expected.predict_chunks(MORE, 20, 1, **options),
            strict=True,
        )
        for one, other in pairs:
            np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)
    listed = [arranged("a named output", part) for part in (MORE[:9], MORE[9:])]
    means = [prediction.mean for prediction in posterior.predict_chunks(listed, 20, 1)]
    np.testing.assert_allclose(np.concatenate(means), expected.predict(MORE, 20, 1).mean, 1e-12)


def test_chunks_of_arrays_of_different_lengths_are_refused():
    x = {"a": MORE[:7, :2], "b": MORE[:, 2:]}
    message = re.escape("`x['b']` has 41 rows where `x['a']` has 7")
    with pytest.raises(ValueError, match=message):
        posterior_of("keywords").predict_chunks(x, rows=3)


@pytest.mark.parametrize("form", ["keywords", "positions"])
def test_to_arviz_is_that_of_one_array(form):
    def tree(posterior, x, new):
        return posterior.to_arviz(x, Y, x_new=new, n_draws=4, seed=1)

    got = tree(posterior_of(form), arranged(form, X), arranged(form, MORE))
    expected = tree(posterior_of(), X, MORE)
    assert got.groups == expected.groups
    for group in expected.groups[1:]:
        if not group.endswith("constant_data"):
            assert got[group].to_dataset().equals(expected[group].to_dataset()), group
    names = ("x.a", "x.b") if form == "keywords" else ("x.0", "x.1")
    for group, rows in (("constant_data", X), ("predictions_constant_data", MORE)):
        assert set(got[group].data_vars) == set(names)
        np.testing.assert_array_equal(got[group][names[0]], rows[:, :2])
        np.testing.assert_array_equal(got[group][names[1]], rows[:, 2])


def test_columns_of_data_frames_are_labelled():
    x = {"a": pd.DataFrame(X[:, :2], columns=["u", "v"]), "b": X[:, 2:]}
    tree = posterior_of("keywords").to_arviz(x, Y, n_draws=2, seed=1)
    assert tree["constant_data"]["x.a"].coords["x.a_feature"].values.tolist() == ["u", "v"]
    with pytest.raises(ValueError, match="`feature_names` needs x as one array"):
        posterior_of("keywords").to_arviz(x, Y, feature_names=["u", "v", "w"])


@pytest.mark.parametrize("form", ["a mapping", "a named output"])
def test_a_stored_posterior_is_read(form, tmp_path):
    posterior = quick_fit(network_of(form), arranged(form, X), restarts=2)
    posterior.save(tmp_path / "kept")
    loaded = Posterior.load(tmp_path / "kept", network_of(form))
    assert_equal(loaded, posterior)
    assert loaded.chains[1].example.keys() == posterior.chains[1].example.keys()
    assert str(loaded.chains[1].example) == str(arranged(form, torch.tensor(X[:1])))
    assert_same_predictions(loaded, arranged(form, MORE), quick_fit(joined(), restarts=2), MORE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"shape": [2], "dtype": "float64"}, "must contain 'example', a row of x"),
        (lambda x: {**x, "structure": {"a": 0, "rest": [2]}}, "must number 2 arrays, got [0, 2]"),
        (lambda x: {**x, "structure": {"a": 0, "rest": ["b"]}}, "must number 2 arrays"),
        (lambda x: {**x, "arrays": x["arrays"][::-1]}, "a row of x is"),
        (lambda x: {**x, "more": 1}, "unknown field 'more'"),
    ],
)
def test_a_changed_structure_is_refused(tmp_path, monkeypatch, change, message):
    from pyrobbb.storage import reading

    posterior_of("a mapping").save(tmp_path)
    header, tensors = reading.read_folder(tmp_path)
    header = json.loads(json.dumps(header))
    header["data"]["x"] = change(header["data"]["x"])
    monkeypatch.setattr(reading, "read_folder", lambda path: (header, tensors))
    with pytest.raises(ValueError, match=re.escape(message)):
        Posterior.load(tmp_path, network_of("a mapping"))


def test_a_posterior_of_a_part_of_the_output_needs_the_network(tmp_path):
    from pyrobbb import BayesianNetwork, mlp

    network = BayesianNetwork(mlp(3, [4], 2, seed=0).double(), output=lambda out: out[:, :1])
    quick_fit(network).save(tmp_path)
    with pytest.raises(ValueError, match="a module that is not a plain `mlp`"):
        Posterior.load(tmp_path)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_crashed_fit_resumes(engine, tmp_path, monkeypatch):
    form = "a named output"
    options = {"engine": engine, "epochs": 8, "every": 3, "checkpoint": tmp_path}
    with monkeypatch.context() as patch:
        crash_at(patch, 9)
        with pytest.raises(Crash):
            quick_fit(network_of(form), arranged(form, X), callbacks=lambda end: None, **options)
    changed = {**arranged(form, X), "a": X[:, :2] + 1}
    with pytest.raises(ValueError, match="its 'x' differs"):
        quick_fit(network_of(form), changed, callbacks=lambda end: None, **options)
    other_output = network_of(form)
    other_output.__init__(other_output.net, output=lambda result: result.logits)
    with pytest.raises(ValueError, match="its 'output' is"):
        quick_fit(other_output, arranged(form, X), callbacks=lambda end: None, **options)
    resumed = quick_fit(network_of(form), arranged(form, X), callbacks=lambda end: None, **options)
    assert_same_fit(resumed, quick_fit(joined(), engine=engine, epochs=8))


def test_an_update_is_that_of_one_array():
    x, y = arranged("keywords", MORE), MORE.sum(1, keepdims=True)
    options = {"seed": 1, "batch_size": 20, "epochs": 2, "progress": False}
    updated = update(posterior_of("keywords"), x, y, **options)
    assert_same_fit(updated, update(posterior_of(), MORE, y, **options))


def test_an_update_counts_rows_not_keys(monkeypatch):
    options = {}
    monkeypatch.setattr("pyrobbb.posterior.updating.fit", lambda *_, **given: options.update(given))
    with pytest.raises(AttributeError, match="network"):  # of the fit, which is None here
        update(posterior_of("keywords"), arranged("keywords", MORE), MORE[:, :1], batch_size=20)
    assert options["epochs"] == 667


class Rows(Dataset):
    """Rows in a form, of which some loaders make batches."""

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        a, b = X[i, :2], X[i, 2:]
        return (X[i] if self.form is None else FORMS[self.form][1](a, b)), Y[i]


class Stream(IterableDataset):
    def __init__(self, form):
        self.rows = Rows(form)

    def __iter__(self):
        return (self.rows[i] for i in range(len(X)))


@pytest.mark.parametrize("form", ["keywords", "positions", "a mapping"])
@pytest.mark.parametrize("kind", [Rows, Stream])
def test_a_loader_has_the_fit_of_one_array(form, kind, tmp_path):
    def fitted(network, form, **options):
        loader = DataLoader(kind(form), batch_size=7, shuffle=kind is Rows)
        return quick_fit(network, loader, None, n_data=23, **options)

    checkpoint = {"checkpoint": tmp_path, "every": 5}
    posterior = fitted(network_of(form), form, **checkpoint)
    assert_same_fit(posterior, fitted(joined(), None))
    assert_same_fit(posterior, fitted(network_of(form), form, **checkpoint))


def test_a_loader_of_mappings_without_y_is_refused():
    loader = DataLoader([{"a": 1.0, "labels": 2.0}])
    with pytest.raises(
        TypeError, match=re.escape("DataLoader of pairs (x, y), but it yields a dict")
    ):
        quick_fit(network_of("keywords"), loader, None, n_data=1)


def test_memory_mapped_arrays_have_the_fit_of_one_array(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_batches, "BUFFER_ROWS", 12)
    monkeypatch.setattr("pyrobbb.streams.CHUNK_BYTES", 5 * 24)
    for name, values in {"x": X, "a": X[:, :2], "b": X[:, 2:], "y": Y}.items():
        np.save(tmp_path / f"{name}.npy", values)
    x, a, b, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xaby")
    expected = quick_fit(joined(), x, y, batch_size=6)
    for parts in ({"a": a, "b": b}, {"a": X[:, :2], "b": b}):
        posterior = quick_fit(
            network_of("keywords"), parts, y, batch_size=6, checkpoint=tmp_path / f"{id(parts)}"
        )
        assert_same_fit(posterior, expected)
        chunks = posterior.predict_chunks(parts, 20, 1, rows=10)
        means = np.concatenate([chunk.mean for chunk in chunks])
        np.testing.assert_allclose(means, expected.predict(X, 20, 1).mean, rtol=1e-12)
    message = re.escape("`x['b']` has 20 rows where `x['a']` has 23")
    with pytest.raises(ValueError, match=message):
        quick_fit(network_of("keywords"), {"a": a, "b": b[:20]}, y)
    message = "`rows` needs x and y in memory, got a dict of memory-mapped arrays"
    with pytest.raises(ValueError, match=message):
        quick_fit(network_of("keywords"), {"a": a, "b": b}, y, rows=[np.arange(9)])


def test_a_non_finite_loss_names_the_array(monkeypatch):
    network = network_of("keywords")
    monkeypatch.setattr("pyrobbb._core.arrays._check_finite", lambda *_: None)
    x = arranged("keywords", X.copy())
    x["b"][4] = np.nan
    with pytest.raises(ArithmeticError, match=re.escape("of the batch's `x['b']`")):
        quick_fit(network, x, batch_size=23)


def test_comparisons_take_mappings():
    form = "a mapping"
    x = arranged(form, X)
    assert crosscheck(network_of(form), x, Y, n_steps=2, n_draws=20).ok
    ranks = [
        sbc(network, rows, 2, seed=1, progress=False, epochs=2, n_draws=5).ranks
        for network, rows in ((network_of(form), x), (joined(), X))
    ]
    for name, values in ranks[1].items():
        np.testing.assert_array_equal(ranks[0][name], values)


def test_stock_pyro_takes_mappings():
    form, n = "a mapping", 4
    x, x_joined = arranged(form, torch.tensor(X)), torch.tensor(X)
    samples = []
    for network, rows in ((network_of(form), x), (joined(), x_joined)):
        guide = MeanFieldGuide(network)
        pyro.set_rng_seed(0)
        svi = pyro.infer.SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
        losses = [svi.step(rows, torch.tensor(Y)) for _ in range(3)]
        drawn = pyro.infer.Predictive(network, guide=guide, num_samples=n, parallel=True)(rows)
        tree = pyrobbb.from_pyro(model=network, guide=guide, args=(rows, torch.tensor(Y)), seed=1)
        samples.append((losses, drawn["y"], tree["log_likelihood"]["y"].values))
        pyro.clear_param_store()
    assert samples[0][0] == samples[1][0]
    torch.testing.assert_close(samples[0][1], samples[1][1], rtol=0, atol=0)
    np.testing.assert_array_equal(samples[0][2], samples[1][2])


def test_a_last_layer_in_closed_form_is_that_of_one_array():
    form = "a named output"
    x, new = arranged(form, X), arranged(form, MORE)
    got = pyrobbb.last_layer(network_of(form), x, Y)
    expected = pyrobbb.last_layer(joined(), X, Y)
    assert_same_predictions(got, new, expected, MORE)
    y = MORE.sum(1, keepdims=True)
    assert_same_predictions(update(got, new, y), new, update(expected, MORE, y), MORE)


@pytest.mark.slow
def test_a_diagnosis_is_that_of_one_array():
    x = arranged("a mapping", X)
    got, expected = (
        posterior.diagnose(rows, Y, n_draws=100, seed=1)
        for posterior, rows in ((posterior_of("a mapping"), x), (posterior_of(), X))
    )
    assert got.table.equals(expected.table)


@pytest.mark.slow
def test_nuts_is_that_of_one_array():
    options = {"n_draws": 20, "n_warmup": 20, "n_chains": 2, "seed": 1, "progress": False}
    got, expected = (
        compare_with_nuts(posterior.network, rows, Y, posterior=posterior, **options)
        for posterior, rows in (
            (posterior_of("keywords"), arranged("keywords", X)),
            (posterior_of(), X),
        )
    )
    for name, draws in expected.mcmc.items():
        assert torch.equal(got.mcmc[name], draws)
