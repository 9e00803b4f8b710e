"""
Intervals of test rows
======================

Observations and their 90 % intervals, sorted by the predicted mean. Those outside are
highlighted.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from pyrobbb import BBBRegressor, plots

x, y = load_diabetes(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
model = BBBRegressor(likelihood="gaussian", epochs=400, restarts=2, random_state=0)
model.fit(x_train, y_train)
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_intervals(model.predict_distribution(x_test), y_test, ax=ax)
