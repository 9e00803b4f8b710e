"""What R passes through reticulate: whole numbers as floats, missing integers, factors."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from support import QUICK_ESTIMATOR, X, Y, assert_equal, noisy_sine, quick_fit, small_network

import pyrobbb
from pyrobbb import BBBClassifier, BBBRegressor, bandits, fit, mlp, scores
from pyrobbb._core.arrays import as_count

INTEGER_NA = -(2**31)
SINE_X, SINE_Y = noisy_sine()


def floats(arguments):
    """Return arguments with floats in place of all integers, as R passes them."""
    return {
        name: value
        if isinstance(value, bool)
        else float(value)
        if isinstance(value, int)
        else [float(v) for v in value]
        if isinstance(value, list)
        else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize("value", [3, 3.0, np.float64(3), np.float32(3), np.int64(3)])
def test_a_whole_number_of_any_type_is_a_count(value):
    assert as_count("n", value) == 3
    assert type(as_count("n", value)) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3.5, "`n` must be a whole number, got 3.5"),
        (float("nan"), "`n` must be a whole number, got nan"),
        (float("inf"), "`n` must be a whole number, got inf"),
        ("3", "`n` must be a whole number, got '3'"),
        (True, "`n` must be a whole number, got True"),
        (0.0, "`n` must be at least 1, got 0"),
        (1e300, "`n` must be below"),
    ],
)
def test_other_values_are_no_counts(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        as_count("n", value)


def test_a_fit_by_floats_is_the_same_fit():
    options = {
        "epochs": 3,
        "batch_size": 10,
        "restarts": 2,
        "n_particles": 2,
        "n_data": 23,
        "seed": 1,
        "every": 3,
    }
    one, other = quick_fit(**options), quick_fit(**floats(options))
    assert_equal(one, other)
    np.testing.assert_array_equal(
        one.predict(X, 10, seed=2).mean, other.predict(X, 10.0, seed=2.0).mean
    )
    torch.testing.assert_close(one.draws(3, seed=4), other.draws(3.0, seed=4.0), rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "y"), [(BBBRegressor, SINE_Y[:, 0]), (BBBClassifier, None)])
@pytest.mark.parametrize("hidden", [8, [8, 4]])
def test_an_estimator_with_floats_is_the_same_and_keeps_its_parameters(kind, y, hidden, tmp_path):
    y = np.where(SINE_Y[:, 0] > 0, "up", "down") if y is None else y
    options = {**QUICK_ESTIMATOR, "batch_size": 32, "patience": 3, "hidden": hidden, "epochs": 5}
    if kind is BBBRegressor:
        options["likelihood"] = "gaussian"
    one, other = kind(**options).fit(SINE_X, y), kind(**floats(options)).fit(SINE_X, y)
    assert other.get_params()["epochs"] == 5.0
    assert isinstance(other.epochs, float)
    assert one.hidden_ == other.hidden_
    assert_equal(one.posterior_, other.posterior_)
    other.save(tmp_path / "model")
    again = kind.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(SINE_X), one.predict(SINE_X))
    assert again.get_params()["random_state"] == 0


def test_further_functions_take_whole_floats():
    net = mlp(3.0, [4.0], 1.0, seed=0.0)
    torch.testing.assert_close(net.state_dict(), mlp(3, 4, 1, seed=0).state_dict())
    assert pyrobbb.LowRankGuide(small_network(), rank=2.0).rank == 2
    posterior = quick_fit()
    chunks = list(posterior.predict_chunks(X, 5.0, seed=0.0, rows=10.0, shard=(0.0, 2.0)))
    assert [len(chunk.mean) for chunk in chunks] == [10, 3]
    one, other = (scores.pit(posterior.predict(X, 5, seed=0), Y, n) for n in (9, 9.0))
    np.testing.assert_array_equal(one, other)
    assert pyrobbb.crosscheck(small_network(), X, Y, n_steps=2.0, n_draws=20.0, seed=0.0).ok
    agent = bandits.ThompsonSampler(2.0, 3.0, hidden=[4.0], n_draws=2.0, seed=0.0)
    agent.observe([0.0, 1.0], 2.0, 1.0)
    assert agent.n_seen == 1


AS_INTEGERS = {
    "array": lambda c: np.array(c, np.int32),
    "list": lambda c: c,
    "rows": lambda c: [[a, 1] for a in c],
    "series": lambda c: pd.Series(c, dtype="int32"),
    "nullable": lambda c: pd.Series([*c[:-1], None], dtype="Int32"),
    "frame": lambda c: pd.DataFrame({"size": np.linspace(0, 1, len(c)), "age": c}),
    "polars": lambda c: pl.DataFrame({"size": np.linspace(0, 1, len(c)), "age": c}),
}


@pytest.mark.parametrize("container", AS_INTEGERS)
def test_a_missing_integer_of_r_is_refused_by_name_and_place(container):
    cells = list(range(23))
    cells[3] = INTEGER_NA
    x = AS_INTEGERS[container](cells)
    column = {"rows": ", column 0", "frame": ", column 'age'", "polars": ", column 'age'"}
    place = f"holds -2147483648 in row 3{column.get(container, '')}, which is how a missing"
    with pytest.raises(ValueError, match=f"`x` {place}"):
        fit(small_network(), x, Y)
    for kind in (BBBRegressor, BBBClassifier):
        with pytest.raises(ValueError, match=f"`X` {place}"):
            kind().fit(x, np.arange(23) % 2)
        if container not in ("rows", "frame", "polars", "nullable"):
            with pytest.raises(ValueError, match=f"`y` {place}"):
                kind().fit(X, x)


def test_the_number_itself_is_no_missing_integer_where_it_is_a_float():
    posterior = quick_fit(x=np.where(X[0, 0] == X, float(INTEGER_NA), X))
    assert len(posterior.history.nelbo) == 12


def test_a_data_frame_of_r_is_fitted_with_its_factors_and_missing_values():
    # As reticulate passes mtcars: factors as categories, logicals as booleans, NA as NaN.
    rng = np.random.default_rng(0)
    cars = pd.DataFrame(
        {
            "cyl": pd.Categorical(rng.choice(["4", "6", "8"], 32), categories=["4", "6", "8"]),
            "wt": np.where(np.arange(32) == 3, np.nan, rng.normal(3, 1, 32)),
            "am": rng.random(32) > 0.5,
        },
        index=[f"car {i}" for i in range(32)],
    )
    mpg = 20.0 - 2 * (cars["cyl"] == "8") + rng.normal(size=32)
    options = {**QUICK_ESTIMATOR, "likelihood": "gaussian", "epochs": 5.0, "hidden": [8.0]}
    model = BBBRegressor(**options).fit(cars, mpg)
    expected = ["cyl = 4", "cyl = 6", "cyl = 8", "wt", "wt is missing", "am = False", "am = True"]
    assert model.columns_.inputs == expected
    assert model.predict_distribution(cars).to_frame().index.tolist() == cars.index.tolist()
    one = pd.DataFrame({"am": [True], "cyl": ["4"], "wt": [np.nan]})
    assert np.isfinite(model.predict(one)).all()


def test_a_factor_is_a_target_of_classes():
    labels = pd.Categorical(np.where(SINE_Y[:, 0] > 0, "up", "down"), categories=["up", "down"])
    for y in (labels, pd.Series(labels)):
        model = BBBClassifier(**{**QUICK_ESTIMATOR, "epochs": 3}).fit(SINE_X, y)
        assert model.classes_.tolist() == ["down", "up"]
    missing = pd.Categorical([None, *labels[1:]], categories=["up", "down"])
    with pytest.raises(ValueError, match=r"`y` must hold class labels of one type.* float and str"):
        BBBClassifier().fit(SINE_X, missing)
