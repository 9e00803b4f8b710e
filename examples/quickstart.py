"""Fit a Bayesian neural network to scikit-learn's diabetes data, predict intervals, score them."""

import argparse

import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import pyrobbb


def main(epochs=300):
    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y[:, None], random_state=0)
    x_scaler, y_scaler = StandardScaler().fit(x_train), StandardScaler().fit(y_train)

    network = pyrobbb.BayesianNetwork(pyrobbb.mlp(10, [50], 1, seed=0))
    x_train, y_train = x_scaler.transform(x_train), y_scaler.transform(y_train)
    posterior = pyrobbb.fit(network, x_train, y_train, epochs=epochs, seed=0)

    prediction = posterior.predict(x_scaler.transform(x_test), seed=0)
    prediction = prediction.rescaled(y_scaler.mean_, y_scaler.scale_)  # in the units of y
    lower, upper = prediction.interval(0.9)
    print("observed, predicted mean, 90 % interval, epistemic sd, aleatoric sd")
    for row in range(5):
        mean, low, high = prediction.mean[row, 0], lower[row, 0], upper[row, 0]
        epistemic, aleatoric = prediction.epistemic_sd[row, 0], prediction.aleatoric_sd[row, 0]
        print(
            f"{y_test[row, 0]:5.0f} {mean:5.0f} [{low:4.0f}, {high:4.0f}]   "
            f"{epistemic:3.0f} {aleatoric:3.0f}"
        )
    print(f"rmse {pyrobbb.scores.rmse(prediction, y_test):.1f}; sd of y {y_test.std():.1f}")
    print(f"nll {pyrobbb.scores.nll(prediction, y_test):.2f} nats per patient")
    print(f"coverage of the 90 % intervals {pyrobbb.scores.coverage(prediction, y_test, 0.9):.0%}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(epochs=2 if parser.parse_args().quick else 300)
