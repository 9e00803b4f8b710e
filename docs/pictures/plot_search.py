"""
What the regressor has tried
============================

The log density of held-out rows for each likelihood and KL weight that ``BBBRegressor`` has
compared.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BBBRegressor, plots

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (300, 1))
y = np.sin(2 * x[:, 0]) + 0.15 * (x[:, 0] + 2.2) * rng.normal(size=300)
model = BBBRegressor(hidden=(20,), epochs=1000, random_state=0).fit(x, y)
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_search(model, ax=ax)
