#!/usr/bin/env bash
# From a csv file to predictions with their uncertainty, by the command line alone.
#
#     examples/cli_tour.sh            # two minutes; --quick: a small budget, to see that it runs
set -euo pipefail

epochs=1000
if [[ "${1:-}" == "--quick" ]]; then epochs=5; fi
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder"

# A table as one gets it: 442 diabetes patients, the progression of their disease after a year, a
# column of words, some cells empty, and numbers of patients that predict nothing. The data set
# does not say which sex is which.
python - <<'PYTHON'
from sklearn.datasets import load_diabetes

data = load_diabetes(as_frame=True, scaled=False)
table = data.data.rename(columns={"bp": "blood_pressure", "s5": "log_triglycerides"})
table["sex"] = table["sex"].map({1: "A", 2: "B"})
table.loc[::40, "blood_pressure"] = None
table.insert(0, "patient", [f"P{i:03}" for i in range(len(table))])
table["progression"] = data.target
table = table.sample(frac=1, random_state=0)
table[:331].to_csv("patients.csv", index=False)
table[331:].drop(columns="progression").to_csv("new.csv", index=False)
PYTHON
head -n 3 patients.csv

# What is a number and what a category, what is left out and why: fit says so, line by line.
# For so few rows a narrow net is enough.
pyrobbb fit patients.csv --target progression --out model --hidden 8 --restarts 2 --epochs $epochs

# A row for each new patient: the mean, and a standard deviation in two parts. `sd_noise` is what
# no model of these columns could know; `sd_doubt` is what more data could still tell. A
# category that the fit has not seen, or a number that is missing now and never was then, is told.
pyrobbb predict model new.csv --out predictions.csv --keep patient --quantiles 0.05,0.5,0.95
head -n 4 predictions.csv

# Can it be relied on? A verdict a line; the exit code is 1 if one of them is bad.
pyrobbb diagnose model patients.csv || echo "One verdict is bad: see the advice beside it."

# The same for people who were not here: one file with tables and pictures.
pyrobbb report model patients.csv --out report.html

# How much of the network is needed? The scores without the noisiest three quarters of its weights.
pyrobbb prune model --fraction 0.75 --out pruned --data patients.csv

# For other programs, each command gives one JSON object; stdout has nothing else.
pyrobbb predict pruned new.csv --out predictions.parquet --json
