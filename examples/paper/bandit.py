"""The mushroom bandit: Blundell et al. (2015), section 5.3 and figure 6.

Thompson sampling with Bayes by Backprop, compared with greedy and epsilon-greedy agents. All agents
have the same network (two hidden layers of 100 ReLU units; its inputs are a mushroom and an
action), the same replay buffer of the last 4096 interactions and the same updates. The paper takes
64 steps with batches of 64 after each interaction; here, an agent takes 64 steps after every 32
interactions, each update continuing from the previous one. Prior, noise scale, number of draws and
learning rate were selected with the seeds 100 and 101, which are not among those reported. The
regret of Bayes by Backprop is far below that of both epsilon-greedy agents; that of the greedy
agent is lower still.

    python examples/paper/bandit.py --quick                 # simulated data, some seconds
    python examples/paper/bandit.py --full --data FOLDER    # 50,000 steps, 5 seeds

FOLDER contains the UCI mushroom data, as `pyrobbb.datasets.load_mushroom` reads them. Each finished
run is one line of bandit.jsonl, with its CPU seconds, and is not repeated.
"""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from records import append, read

from pyrobbb import priors
from pyrobbb.bandits import EpsilonGreedy, MushroomBandit, ThompsonSampler, run
from pyrobbb.datasets import load_mushroom
from pyrobbb.likelihoods import Gaussian

HERE = Path(__file__).parent
N_STEPS, N_RECORDED = 50_000, 200
SHARED = {"hidden": (100, 100), "replay_size": 4096, "batch_size": 64, "update_every": 32}
SHARED |= {"n_steps": 64, "lr": 1e-3, "reward_scale": 10.0}
BAYES = {"prior": priors.Normal(0.5), "likelihood": Gaussian(0.1), "n_draws": 4}
NAMES = {
    "bbb": "Bayes by Backprop",
    "greedy": "greedy",
    "greedy-1": "1 % greedy",
    "greedy-5": "5 % greedy",
}
EPSILONS = {"greedy": 0.0, "greedy-1": 0.01, "greedy-5": 0.05}


def make_agent(name, n_features, seed, engine):
    if name == "bbb":
        return ThompsonSampler(n_features, 2, seed=seed, engine=engine, **SHARED, **BAYES)
    return EpsilonGreedy(n_features, 2, epsilon=EPSILONS[name], seed=seed, **SHARED)


def simulate_mushrooms(seed=0):
    """Simulate 600 mushrooms with four attributes, two of which determine which are edible."""
    rng = np.random.default_rng(seed)
    attributes = [rng.integers(n, size=600) for n in (6, 4, 5, 3)]
    x = np.concatenate([np.eye(a.max() + 1, dtype=np.float32)[a] for a in attributes], 1)
    return x, (attributes[0] < 3) ^ (attributes[1] == 0)


def one_run(name, seed, x, is_edible, n_steps, engine):
    start = time.process_time()
    agent = make_agent(name, x.shape[1], seed, engine)
    regret = run(agent, MushroomBandit(x, is_edible, seed=seed), n_steps)
    at = np.unique(np.linspace(0, n_steps, min(N_RECORDED, n_steps) + 1).astype(int)[1:])
    return {
        "agent": name,
        "seed": seed,
        "n_steps": n_steps,
        "settings": settings_of(name),
        "seconds": round(time.process_time() - start, 1),
        "at": at.tolist(),
        "regret": regret[at - 1].tolist(),
    }


def settings_of(name):
    settings = SHARED | BAYES if name == "bbb" else SHARED
    return {key: repr(value) for key, value in settings.items()}


def table_of(rows):
    lines = [f"{'':18} {'runs':>4} {'regret, half':>18} {'at the end':>18} {'last 10 %':>12}"]
    for name, title in NAMES.items():
        curves = np.array([row["regret"] for row in rows if row["agent"] == name])
        if len(curves):
            half, end = curves[:, curves.shape[1] // 2 - 1], curves[:, -1]
            last = end - curves[:, -1 - curves.shape[1] // 10]
            cells = [f"{v.mean():.0f} +- {v.std(ddof=min(1, len(v) - 1)):.0f}" for v in (half, end)]
            lines.append(
                f"{title:18} {len(curves):4} {cells[0]:>18} {cells[1]:>18} {last.mean():12.0f}"
            )
    return "\n".join(lines)


def draw(rows, file):
    """Draw the cumulative regret of each agent: single runs and their mean."""
    colors = {"bbb": "#2a6f97", "greedy": "#333333", "greedy-1": "#e09f3e", "greedy-5": "#c8553d"}
    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    fig, ax = plt.subplots(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    ends = {}
    for name, color in colors.items():
        runs = [row for row in rows if row["agent"] == name]
        if not runs:
            continue
        curves = np.array([row["regret"] for row in runs])
        for curve in curves:
            ax.plot(runs[0]["at"], curve, color=color, lw=0.6, alpha=0.35)
        ax.plot(runs[0]["at"], curves.mean(0), color=color, lw=2)
        ends[name] = max(curves.mean(0)[-1], 1.0)
    ax.set_yscale("log")
    ax.set(xlabel="interactions", ylabel="cumulative regret")
    ax.set_xlim(0, runs[0]["at"][-1])
    ax.set_ylim(bottom=max(min(row["regret"][0] for row in rows), 100.0))
    at = 0.0
    for name in sorted(ends, key=ends.get):  # keep a distance between labels
        at = max(np.log10(ends[name]), at + 0.09)
        text = f"{NAMES[name]}, {ends[name]:,.0f}"
        ax.annotate(
            text,
            (1.0, 10**at),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colors[name],
            weight="bold" if name == "bbb" else "normal",
        )
    ax.set_title(
        f"Mushrooms: regret of {len({row['seed'] for row in rows})} runs and their mean",
        loc="left",
    )
    ax.grid(axis="y", color="#dddddd", lw=0.6)
    fig.savefig(file)
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="some hundred steps, one seed")
    size.add_argument("--full", action="store_true", help="50,000 steps (the default)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="default: openml.org")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for bandit.jsonl and bandit.png")
    options = parser.parse_args()

    torch.set_num_threads(1)
    if options.quick and options.data is None:
        x, is_edible = simulate_mushrooms()
        print("No --data: using 600 simulated mushrooms.")
    else:
        x, is_edible = load_mushroom(options.data)
    n_steps, seeds, engine = N_STEPS, options.seeds, "compiled"
    out = options.out or HERE
    if options.quick:
        n_steps, seeds, engine, out = 640, 1, "fused", options.out

    file = None if out is None else out / "bandit.jsonl"
    rows = [] if file is None else read(file)
    wanted = [(name, seed) for seed in range(seeds) for name in NAMES]
    for name, seed in wanted:
        key = {"agent": name, "seed": seed, "n_steps": n_steps, "settings": settings_of(name)}
        if any(key.items() <= row.items() for row in rows):
            continue
        row = one_run(name, seed, x, is_edible, n_steps, engine)
        rows.append(row)
        if file is not None:
            append(file, row)
        print(f"{NAMES[name]:18} seed {seed}: regret {row['regret'][-1]:.0f}, {row['seconds']} s")
    rows = [row for row in rows if (row["agent"], row["seed"]) in wanted]
    print(table_of(rows))
    if out is not None:
        draw(rows, out / "bandit.png")


if __name__ == "__main__":
    main()
