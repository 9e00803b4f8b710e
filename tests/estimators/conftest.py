"""Data and fitted estimators that all tests share and none changes."""

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_friedman1

from pyrobbb import BBBClassifier, BBBRegressor


@pytest.fixture(scope="session")
def friedman():
    X, y = make_friedman1(300, 5, noise=1.0, random_state=0)
    return X, 1000 + 10 * y


@pytest.fixture(scope="session")
def regressor(friedman):
    return BBBRegressor(epochs=1000, restarts=2, random_state=0).fit(*friedman)


@pytest.fixture(scope="session")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.fixture(scope="session")
def classifier(iris):
    return BBBClassifier(epochs=500, restarts=2, random_state=0).fit(*iris)
