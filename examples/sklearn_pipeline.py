"""Use the scikit-learn estimators: mixed columns, a pipeline, a grid search, a classifier."""

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
    """Predict the progression of diabetes from mixed columns with missing values."""
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
    likelihood = search.best_params_["bbbregressor__likelihood"]
    print(f"likelihood selected by cross-validation: {likelihood}")

    mean, sd = search.best_estimator_.predict(test.drop(columns="target"), return_std=True)
    model, inputs = search.best_estimator_[-1], search.best_estimator_[:-1]
    prediction = model.predict_distribution(inputs.transform(test.drop(columns="target")))
    epistemic_sd = prediction.epistemic_sd[0]
    print(f"first patient: {mean[0]:.0f} +- {sd[0]:.0f}, epistemic sd {epistemic_sd:.0f}")
    print(f"R2 {search.score(test.drop(columns='target'), test['target']):.2f}")
    coverage = scores.coverage(prediction, test["target"], 0.9)
    print(f"coverage of the 90 % intervals {coverage:.0%}")

    with tempfile.TemporaryDirectory() as folder:  # arrays and JSON, no pickle
        model.save(Path(folder) / "model")
        loaded = BBBRegressor.load(Path(folder) / "model")
        loaded_mean = loaded.predict(inputs.transform(test.drop(columns="target")))
        print(f"same predictions after loading: {(loaded_mean == mean).all()}")


def classification(budget):
    """Classify tumours, and compare the accuracy of certain and uncertain predictions."""
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y.map({0: "malignant", 1: "benign"}), stratify=y, random_state=0
    )
    model = BBBClassifier(random_state=0, **budget).fit(x_train, y_train)
    prediction = model.predict_distribution(x_test)
    correct = model.predict(x_test) == y_test
    certain = prediction.entropy < np.quantile(prediction.entropy, 0.8)
    summary = pd.DataFrame({"accuracy": [correct[certain].mean(), correct[~certain].mean()]})
    summary.index = ["most certain 80 %", "most uncertain 20 %"]
    print(summary.round(3).to_string())
    print(f"accuracy {model.score(x_test, y_test):.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(**({"epochs": 2, "restarts": 1} if parser.parse_args().quick else {"restarts": 2}))
