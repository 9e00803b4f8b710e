"""Mixed columns, a pipeline and a search: Bayes by Backprop as a scikit-learn estimator."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pyrobbb import BBBClassifier, BBBRegressor, scores


def main(**budget):
    regression(budget)
    classification(budget)


def regression(budget):
    """Predict the course of diabetes, from numbers, a category, and with values missing."""
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame["sex"] = frame["sex"].map({1.0: "one", 2.0: "two"})
    frame.loc[::20, "bmi"] = np.nan
    train, test = train_test_split(frame, random_state=0)

    columns = make_column_transformer(
        (OneHotEncoder(drop="if_binary"), ["sex"]),
        (SimpleImputer(add_indicator=True), ["bmi"]),
        remainder="passthrough",
    )
    pipeline = make_pipeline(columns, BBBRegressor(random_state=0, **budget))
    search = GridSearchCV(
        pipeline, {"bbbregressor__likelihood": ["gaussian", "heteroscedastic"]}, cv=3
    )
    search.fit(train.drop(columns="target"), train["target"])
    print(f"noise by cross-validation: {search.best_params_['bbbregressor__likelihood']}")

    mean, sd = search.best_estimator_.predict(test.drop(columns="target"), return_std=True)
    model, inputs = search.best_estimator_[-1], search.best_estimator_[:-1]
    prediction = model.predict_distribution(inputs.transform(test.drop(columns="target")))
    doubt = prediction.epistemic_sd[0]
    print(f"first patient: {mean[0]:.0f} +- {sd[0]:.0f}, of that doubt {doubt:.0f}")
    print(f"R2 {search.score(test.drop(columns='target'), test['target']):.2f}")
    print(f"{scores.coverage(prediction, test['target'], 0.9):.0%} inside the 90 % intervals")

    with tempfile.TemporaryDirectory() as folder:  # no pickle: numbers and JSON
        model.save(Path(folder) / "model")
        again = BBBRegressor.load(Path(folder) / "model")
        same = again.predict(inputs.transform(test.drop(columns="target")))
        print(
            f"read back: {'the same predictions' if (same == mean).all() else 'other predictions'}"
        )


def classification(budget):
    """Tell tumours apart, and say of which one is unsure."""
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y.map({0: "malignant", 1: "benign"}), stratify=y, random_state=0
    )
    model = BBBClassifier(random_state=0, **budget).fit(x_train, y_train)
    prediction = model.predict_distribution(x_test)
    right = model.predict(x_test) == y_test
    sure = prediction.entropy < np.quantile(prediction.entropy, 0.8)
    summary = pd.DataFrame({"accuracy": [right[sure].mean(), right[~sure].mean()]})
    summary.index = ["the four fifths it is surer of", "the other fifth"]
    print(summary.round(3).to_string())
    print(f"accuracy {model.score(x_test, y_test):.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # several threads only slow down a net this small
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(**({"epochs": 2, "restarts": 1} if parser.parse_args().quick else {"restarts": 2}))
