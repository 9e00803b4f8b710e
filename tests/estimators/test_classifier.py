"""BBBClassifier: labels, probabilities and their uncertainty."""

import numpy as np
import pytest
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier


def test_labels_of_any_type_are_predicted(iris):
    X, y = iris
    for labels in ([3, 7, -1], ["a", "b", "ccc"], [True, False], np.array([1.0, 2.0, 4.0])):
        classes = np.array(labels)
        target = classes[np.unique(y, return_inverse=True)[1] % len(classes)]
        model = BBBClassifier(**QUICK_ESTIMATOR).fit(X, target)
        assert set(model.predict(X).tolist()) <= set(classes.tolist())
        assert model.predict(X).dtype == target.dtype
        np.testing.assert_array_equal(model.classes_, np.unique(classes))


def test_probabilities_follow_the_order_of_the_classes(classifier, iris):
    X, y = iris
    probs = classifier.predict_proba(X)
    np.testing.assert_allclose(probs.sum(1), 1)
    np.testing.assert_array_equal(classifier.classes_[probs.argmax(1)], classifier.predict(X))
    np.testing.assert_allclose(classifier.predict_log_proba(X), np.log(probs))
    assert classifier.score(X, y) > 0.95


def test_epistemic_uncertainty_is_larger_far_from_the_data(classifier, iris):
    X = iris[0]
    uncertainty = classifier.decision_uncertainty(X)
    assert uncertainty.shape == (len(X),)
    assert (uncertainty >= 0).all()
    far = X.mean(0) + np.array([9.0, -9.0, 9.0, -9.0])
    assert classifier.decision_uncertainty(far[None])[0] > np.quantile(uncertainty, 0.75)


def test_a_single_class_is_rejected():
    with pytest.raises(ValueError, match="at least two classes, got one class"):
        BBBClassifier(**QUICK_ESTIMATOR).fit([[0.0], [1.0]], ["a", "a"])


def test_the_first_partial_fit_need_not_contain_all_classes(iris):
    X, y = iris
    model = BBBClassifier(restarts=1, random_state=0)
    model.partial_fit(X[:100], y[:100], classes=np.unique(y))
    model.partial_fit(X[100:], y[100:])
    assert model.predict_proba(X).shape == (150, 3)
    assert model.score(X[100:], y[100:]) > 0.8
    with pytest.raises(
        ValueError, match=r"must hold only classes of the first fit, .*, got 'rose'"
    ):
        model.partial_fit(X[:2], ["rose", "setosa"])
