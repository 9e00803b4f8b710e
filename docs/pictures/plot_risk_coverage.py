"""
Risk against coverage
=====================

The share of wrong answers among the most certain images. If the uncertain
ones are left to a person, the curve shows how many errors remain.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pyrobbb import BBBClassifier, plots

x, labels = load_digits(return_X_y=True)
x_train, x_test, labels_train, labels_test = train_test_split(x, labels, random_state=0)
model = BBBClassifier(hidden=(30,), epochs=40, restarts=1, random_state=0)
model.fit(x_train, labels_train)
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_risk_coverage(model.predict_distribution(x_test), labels_test, ax=ax)
