#!/usr/bin/env bash
# From a csv file to predictions with their uncertainty, by the command line only.
#
#     examples/cli_tour.sh            # two minutes; --quick: a small budget, to see that it runs
set -euo pipefail

epochs=1000 n_patients=442
if [[ "${1:-}" == "--quick" ]]; then epochs=5 n_patients=60; fi
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder"

# A typical table: 442 diabetes patients, the progression of their disease after a year, a
# categorical column, some empty cells, and identifiers, which predict nothing. The data set does
# not document the coding of sex.
python - $n_patients <<'PYTHON'
import sys

from sklearn.datasets import load_diabetes

data = load_diabetes(as_frame=True, scaled=False)
table = data.data.rename(columns={"bp": "blood_pressure", "s5": "log_triglycerides"})
table["sex"] = table["sex"].map({1: "A", 2: "B"})
table.loc[::40, "blood_pressure"] = None
table.insert(0, "patient", [f"P{i:03}" for i in range(len(table))])
table["progression"] = data.target
table = table.sample(frac=1, random_state=0)[: int(sys.argv[1])]
n_fitted = len(table) * 3 // 4
table[:n_fitted].to_csv("patients.csv", index=False)
table[n_fitted:].drop(columns="progression").to_csv("new.csv", index=False)
PYTHON
head -n 3 patients.csv

# `fit` notes how it treats each column: as numeric, as categorical, or left out, with the reason.
# For so few rows a narrow net is enough.
pyrobbb fit patients.csv --target progression --out model --hidden 8 --restarts 2 --epochs $epochs

# One row per new patient: the mean, and the standard deviation in two parts. `aleatoric_sd` is
# the noise of the target given these columns; `epistemic_sd` is the uncertainty about the model,
# which more data would reduce. Unseen categories and imputed values are noted.
pyrobbb predict model new.csv --out predictions.csv --keep patient --quantiles 0.05,0.5,0.95
head -n 4 predictions.csv

# Is the model reliable? Each check has a verdict; the exit status is 1 if one of them is bad.
pyrobbb diagnose model patients.csv || echo "A verdict is bad: follow its advice."

# The same as a report to share: one HTML file with tables and figures.
pyrobbb report model patients.csv --out report.html

# How much of the network is needed? Scores with and without the three quarters of the weights
# that have the lowest signal-to-noise ratio.
pyrobbb prune model --fraction 0.75 --out pruned --data patients.csv

# For other programs, --json prints one JSON object, and nothing else, on stdout.
pyrobbb predict pruned new.csv --out predictions.parquet --json
