"""Makes `format-2`, a posterior as this version writes it, and what it predicted then.

`python tests/stored/make.py`, once for each format: a folder that is here stays as it is, as later
versions must read it.
"""

import json
from pathlib import Path

import numpy as np

from pyrobbb import BayesianNetwork, fit, mlp, priors
from pyrobbb.storage.layout import FORMAT

HERE = Path(__file__).parent
X = np.linspace(-1.0, 1.0, 10, dtype=np.float32).reshape(5, 2)

if __name__ == "__main__":
    folder = HERE / f"format-{FORMAT}"
    if folder.exists():
        raise SystemExit(f"{folder.name} is there already.")
    prior = priors.ByName({"*.bias": priors.Normal(2.0)}, priors.ScaleMixture(0.25, 1.5, 0.1))
    network = BayesianNetwork(mlp(2, [3], 1, "tanh", seed=0), prior)
    posterior = fit(
        network, X, X.sum(1, keepdims=True), epochs=20, restarts=2, seed=0, progress=False
    )
    posterior.save(folder)
    prediction = posterior.predict(X, n_draws=50, seed=0)
    recorded = {
        "mean": prediction.mean.tolist(),
        "aleatoric_sd": prediction.aleatoric_sd.tolist(),
        "loc": [chain.guide.loc.tolist() for chain in posterior.chains],
        "nelbo": [chain.history.nelbo.tolist() for chain in posterior.chains],
    }
    (HERE / f"format-{FORMAT}.json").write_text(json.dumps(recorded, indent=1))
