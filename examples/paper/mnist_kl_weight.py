"""MNIST with the KL weight chosen by the log density of validation images, in two steps.

    python examples/paper/mnist_kl_weight.py --choose --data FOLDER  # reads no test images
    python examples/paper/mnist_kl_weight.py --test --data FOLDER
    python examples/paper/mnist_kl_weight.py --quick

Two hidden layers of 400 ReLU units, the mixture prior of mnist.py, batches of 128. The first step
fits 50,000 images with each KL weight, and writes to mnist-kl-weight.json the validation scores and
the weight that is chosen: the highest whose mean log density is within one standard error of the
best, as `fit(kl_weight="auto")` chooses. The second fits all 60,000 images with this weight, and
scores the posterior on the test images with 100 draws. Interrupted fits resume from --checkpoints.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from images import load_mnist, load_small, load_training
from mnist import BATCH_SIZE, CHOSEN, N_DRAWS, predict, scored

import pyrobbb
from pyrobbb import scores

RECORD = Path(__file__).parent / "mnist-kl-weight.json"
KL_WEIGHTS = (0.05, 0.1, 0.2, 0.4)
SETTINGS = CHOSEN["mixture"]  # but for its KL weight
SEED = 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="default: openml.org")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--quick", action="store_true", help="small digits, a small budget")
    what.add_argument("--choose", action="store_true", help="choose the KL weight")
    what.add_argument("--test", action="store_true", help="fit with the chosen weight, and score")
    parser.add_argument("--epochs", type=int, default=200, help="of each fit")
    parser.add_argument("--chains", type=int, default=1, help="of the fit that is tested")
    parser.add_argument("--checkpoints", type=Path, default=Path("paper-checkpoints"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        images = load_small()
        record = choose(images.x, images.y, images.x_valid, images.y_valid, units=32, epochs=2)
        fit_and_test(images, record["chosen"], units=32, epochs=2)
    elif options.choose:
        record = choose(
            *load_training(options.data), epochs=options.epochs, folder=options.checkpoints
        )
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    else:
        record = json.loads(RECORD.read_text())
        record["test"] = fit_and_test(
            load_mnist(options.data),
            record["chosen"],
            epochs=options.epochs,
            chains=options.chains,
            folder=options.checkpoints,
        )
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


def choose(x, y, x_valid, y_valid, *, units=400, epochs, folder=None):
    """Fit with each KL weight, and return the validation scores and the choice."""
    start = time.perf_counter()
    log_densities, valid = [], []
    for kl_weight in KL_WEIGHTS:
        posterior = fit(x, y, kl_weight, units, epochs, folder and folder / f"choose-{kl_weight}")
        prediction = predict(posterior, x_valid)
        log_densities.append(prediction.log_prob(y_valid))
        valid.append({"kl_weight": kl_weight, **scored(prediction, y_valid)})
        print("validation", valid[-1], flush=True)
    _, errors, is_level = scores.compare_log_densities(np.stack(log_densities))
    for row, error in zip(valid, errors, strict=True):
        row["standard_error"] = round(float(error), 5)
    chosen = max(w for w, level in zip(KL_WEIGHTS, is_level, strict=True) if level)
    print(f"chosen KL weight: {chosen}")
    return {
        "chosen": chosen,
        "epochs": epochs,
        "valid": valid,
        "seconds": round(time.perf_counter() - start),
    }


def fit_and_test(images, kl_weight, *, units=400, epochs, chains=1, folder=None):
    """Fit all images with the chosen KL weight, and score the posterior on the test images."""
    start = time.perf_counter()
    x = np.concatenate([images.x, images.x_valid])
    y = np.concatenate([images.y, images.y_valid])
    posterior = fit(x, y, kl_weight, units, epochs, folder and folder / "test", restarts=chains)
    result = {"epochs": epochs, "chains": chains, "draws": N_DRAWS}
    result |= scored(predict(posterior, images.x_test), images.y_test)
    result["seconds"] = round(time.perf_counter() - start)
    print("test", result)
    return result


def fit(x, y, kl_weight, units, epochs, checkpoint, **options):
    """Fit the network of mnist.py."""
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(x.shape[1], [units, units], int(y.max()) + 1, seed=SEED),
        prior=SETTINGS.prior,
        likelihood=pyrobbb.likelihoods.Categorical(),
    )
    return pyrobbb.fit(
        network,
        x,
        y,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        lr=SETTINGS.lr,
        kl_weight=kl_weight,
        kl_warmup=0.3,
        estimator=SETTINGS.estimator,
        guide=pyrobbb.MeanFieldGuide(network, init_scale=SETTINGS.init_scale),
        checkpoint=checkpoint,
        seed=SEED,
        progress=False,
        **options,
    )


if __name__ == "__main__":
    main()
