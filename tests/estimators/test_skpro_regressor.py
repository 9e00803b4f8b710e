"""`BBBProbaRegressor`: skpro's own checks, and its distributions against the predictions."""

import numpy as np
import pandas as pd
import pytest
from support import QUICK_ESTIMATOR, RNG

from pyrobbb import BBBRegressor

pytest.importorskip("skpro", reason="needs skpro, of the extra `skpro`")

from skpro.utils import check_estimator

from pyrobbb.estimators.skpro_regressor import BBBProbaRegressor

X = pd.DataFrame(RNG.normal(size=(60, 2)), index=range(100, 160), columns=["a", 7])
Y = pd.DataFrame(RNG.normal(size=(60, 2)) + X.to_numpy(), X.index, ["u", "v"])


@pytest.fixture(scope="module")
def fitted():
    regressor = BBBRegressor([4], likelihood="gaussian", **QUICK_ESTIMATOR)
    return BBBProbaRegressor(regressor).fit(X, Y)


@pytest.fixture(scope="module")
def prediction(fitted):
    named = X.set_axis(["a", "7"], axis=1)
    return fitted.regressor_.predict_distribution(named)


@pytest.mark.filterwarnings("ignore")  # of skpro's own code and tests
def test_the_checks_of_skpro_pass():
    results = check_estimator(BBBProbaRegressor, verbose=False)
    assert len(results) > 50
    assert {name: found for name, found in results.items() if found != "PASSED"} == {}


def test_moments_quantiles_and_densities_are_those_of_the_prediction(fitted, prediction):
    found = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.predict(X), prediction.mean)
    np.testing.assert_allclose(found.mean(), prediction.mean)
    np.testing.assert_allclose(found.var(), prediction.sd**2)
    np.testing.assert_allclose(found.cdf(Y), prediction.cdf(Y.to_numpy()))
    np.testing.assert_allclose(found.pdf(Y), np.exp(found.log_pdf(Y)))
    density = [prediction.column(j).log_prob(Y.to_numpy()[:, j]) for j in (0, 1)]
    np.testing.assert_allclose(found.log_pdf(Y), np.stack(density, 1))
    quantiles = fitted.predict_quantiles(X, [0.05, 0.5])
    assert list(quantiles.columns) == [("u", 0.05), ("u", 0.5), ("v", 0.05), ("v", 0.5)]
    np.testing.assert_allclose(quantiles["v"], prediction.quantile([0.05, 0.5])[..., 1].T)
    lower, upper = prediction.interval(0.8)
    interval = fitted.predict_interval(X, 0.8)["u", 0.8]
    np.testing.assert_allclose(interval, np.stack([lower[:, 0], upper[:, 0]], 1))


def test_parts_of_a_distribution_are_those_of_its_rows_and_columns(fitted):
    whole = fitted.predict_proba(X)
    part = whole.iloc[[3, 5], [1]]
    assert part.shape == (2, 1)
    assert list(part.index) == [103, 105]
    assert list(part.columns) == ["v"]
    np.testing.assert_allclose(part.mean(), whole.mean().iloc[[3, 5], [1]])
    np.testing.assert_allclose(whole.loc[[103]].mean(), whole.mean().loc[[103]])
    assert whole.head(4).shape == (4, 2)


def test_samples_have_the_distribution(fitted):
    whole = fitted.predict_proba(X)
    assert whole.sample().shape == (60, 2)
    sample = whole.sample(500)
    assert sample.shape == (30_000, 2)
    assert list(sample.index[:61]) == [*((0, i) for i in X.index), (1, 100)]
    for row in (100, 101):
        alone = whole.iloc[[row - 100]]
        at = alone.quantile([0.1, 0.5, 0.9])  # columns (u, 0.1), ...
        values = sample.xs(row, level=1)
        for column in "uv":
            shares = (values[column].to_numpy()[:, None] < at[column].to_numpy()).mean(0)
            np.testing.assert_allclose(shares, [0.1, 0.5, 0.9], atol=4 * 0.5 / 500**0.5)
    assert whole.sample(500)["u"].nunique() == 30_000


def test_update_is_partial_fit():
    regressor = BBBRegressor([4], likelihood="gaussian", **QUICK_ESTIMATOR)
    found = BBBProbaRegressor(regressor).fit(X[:40], Y[:40]).update(X[40:], Y[40:])
    named = X.set_axis(["a", "7"], axis=1)
    expected = regressor.fit(named[:40], Y[:40]).partial_fit(named[40:], Y[40:])
    np.testing.assert_array_equal(found.predict(X), expected.predict(named))
