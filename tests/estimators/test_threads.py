"""Estimators predict from many threads what they predict from one."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from support import QUICK_ESTIMATOR, noisy_sine

from pyrobbb import BBBClassifier, BBBRegressor


def test_predictions_of_estimators_from_many_threads_are_those_of_one():
    x, y = noisy_sine(40)
    regressor = BBBRegressor(**QUICK_ESTIMATOR).fit(x, y[:, 0])
    classifier = BBBClassifier(**QUICK_ESTIMATOR).fit(x, y[:, 0] > 0)
    calls = [
        lambda: regressor.predict(x),
        lambda: np.stack(regressor.predict(x, return_std=True)),
        lambda: classifier.predict(x),
        lambda: classifier.predict_proba(x),
    ]
    expected = [call() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(call) for call in calls * 10]
        for answer, right in zip(answers, expected * 10, strict=True):
            np.testing.assert_array_equal(answer.result(60), right)
