"""
Decision surface
================

The probability of the second of two moons, and the mutual information, which is high where
draws of the weights disagree.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from pyrobbb import BBBClassifier

x, labels = make_moons(200, noise=0.15, random_state=0)
model = BBBClassifier(hidden=(20,), epochs=400, restarts=2, random_state=0).fit(x, labels)
a, b = np.meshgrid(np.linspace(-3, 4, 60), np.linspace(-3, 3.5, 60))
prediction = model.predict_distribution(np.column_stack([a.ravel(), b.ravel()]))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
values = {
    "probability": prediction.probs[:, 1],
    "mutual information": prediction.mutual_information,
}
for ax, (name, value) in zip(axes, values.items(), strict=True):
    figure.colorbar(ax.contourf(a, b, value.reshape(a.shape), 20, cmap="viridis"), ax=ax)
    ax.scatter(*x.T, c=labels, s=8, cmap="coolwarm")
    ax.set(title=name)
