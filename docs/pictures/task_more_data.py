"""
What more data would reduce
===========================

Epistemic uncertainty falls as rows are added; aleatoric uncertainty stays at the noise of y. With
only 20 rows, part of the function is taken for noise.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, fit, mlp

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (1000, 1))
y = np.sin(2 * x) + 0.2 * rng.normal(size=x.shape)
counts, parts = (20, 60, 200, 1000), []
for n in counts:
    network = BayesianNetwork(mlp(1, [10], 1, "tanh", seed=0))
    posterior = fit(network, x[:n], y[:n], epochs=4000 // -(-n // 128), seed=0, progress=False)
    prediction = posterior.predict(np.linspace(-2, 2, 50)[:, None], seed=0)
    parts.append((prediction.epistemic_sd.mean(), prediction.aleatoric_sd.mean()))
figure, ax = plt.subplots(layout="constrained")
ax.loglog(counts, parts, marker="o", label=["epistemic", "aleatoric"])
ax.axhline(0.2, color="black", lw=0.8, ls=":", label="noise of y")
ax.set(title="Uncertainty by rows", xlabel="rows", ylabel="standard deviation")
ax.legend()
