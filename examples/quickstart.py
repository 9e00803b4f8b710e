"""Fit a Bayesian network to scikit-learn's diabetes data; predict with intervals; score them."""

import argparse

import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import pyrobbb


def main(epochs=300):
    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y[:, None], random_state=0)
    of_x, of_y = StandardScaler().fit(x_train), StandardScaler().fit(y_train)

    network = pyrobbb.BayesianNetwork(pyrobbb.mlp(10, [50], 1, seed=0))
    x_train, y_train = of_x.transform(x_train), of_y.transform(y_train)
    posterior = pyrobbb.fit(network, x_train, y_train, epochs=epochs, seed=0)

    prediction = posterior.predict(of_x.transform(x_test), seed=0)
    prediction = prediction.rescaled(of_y.mean_, of_y.scale_)  # back in the units of y
    lower, upper = prediction.interval(0.9)
    print("progression seen, mean, 90 % interval; doubt and noise as standard deviations")
    for row in range(5):
        mean, low, high = prediction.mean[row, 0], lower[row, 0], upper[row, 0]
        doubt, noise = prediction.epistemic_sd[row, 0], prediction.aleatoric_sd[row, 0]
        seen = y_test[row, 0]
        print(f"{seen:5.0f} {mean:5.0f} [{low:4.0f}, {high:4.0f}]   {doubt:3.0f} {noise:3.0f}")
    print(f"rmse {pyrobbb.scores.rmse(prediction, y_test):.1f}; sd of y {y_test.std():.1f}")
    print(f"nll {pyrobbb.scores.nll(prediction, y_test):.2f} nats a patient")
    print(f"{pyrobbb.scores.coverage(prediction, y_test, 0.9):.0%} inside the 90 % intervals")


if __name__ == "__main__":
    torch.set_num_threads(1)  # several threads only slow down a net this small
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(epochs=2 if parser.parse_args().quick else 300)
