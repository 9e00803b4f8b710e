"""Train the posterior of a network with PyTorch Lightning, and compare it with `pyrobbb.fit`.

`FusedELBO` called on a network and its guide is an `nn.Module` that returns the negative ELBO, so
any trainer of torch modules can minimise it. Needs Lightning: `pip install lightning`.
"""

import argparse
import logging
import warnings

import lightning
import pyro
import torch
from pyro.infer import Predictive
from torch.utils.data import DataLoader, TensorDataset

import pyrobbb

N_DATA, BATCH, LR = 256, 64, 0.01


class BayesByBackprop(lightning.LightningModule):
    def __init__(self, network, guide, n_data):
        super().__init__()
        self.nelbo, self.n_data = pyrobbb.FusedELBO("mean_field")(network, guide), n_data

    def training_step(self, batch):
        loss = self.nelbo(*batch, n_data=self.n_data)  # scales the likelihood of the batch
        self.log("nelbo", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=LR)


def make_network():
    likelihood = pyrobbb.likelihoods.Gaussian(scale=0.2)
    return pyrobbb.BayesianNetwork(pyrobbb.mlp(1, [20], 1, "tanh", seed=0), likelihood=likelihood)


def train(network, guide, x, y, epochs):
    """Fit a guide by Lightning."""
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(x, y), BATCH, shuffle=True)
    trainer.fit(BayesByBackprop(network, guide, len(x)), loader)


def mean_nelbo(network, guide, x, y):
    """Compute the negative ELBO of all rows, in nats, averaged over 500 draws of the weights."""
    pyro.set_rng_seed(0)
    return pyrobbb.FusedELBO("mean_field", num_particles=500).loss(network, guide, x, y)


def main(epochs=1000):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*many workers|.*logging interval|.*isinstance.treespec")
    x = torch.linspace(-2, 2, N_DATA)[:, None]
    y = torch.sin(2 * x) + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    probes = torch.tensor([[-1.0], [0.0], [1.0], [3.0]])

    network = make_network()
    guide = pyrobbb.MeanFieldGuide(network)
    train(network, guide, x, y, epochs)
    with torch.no_grad():
        drawn = Predictive(network.eval(), guide=guide, num_samples=500, parallel=True)(probes)["y"]
    nelbo = mean_nelbo(network, guide, x, y)

    posterior = pyrobbb.fit(
        make_network(),
        x,
        y,
        epochs=epochs,
        batch_size=BATCH,
        lr=LR,
        schedule="constant",
        kl_warmup=0,
        objective="mean_field",
        seed=0,
        progress=False,
    )
    prediction = posterior.predict(probes, n_draws=500, seed=0)
    nelbo_of_fit = mean_nelbo(posterior.network, posterior.guide, x, y)

    print(f"{'':10}  nelbo   mean +- sd of y at {probes.flatten().tolist()}")
    for name, loss, means, sds in (
        ("Lightning", nelbo, drawn.mean(0), drawn.std(0)),
        ("fit", nelbo_of_fit, prediction.mean, prediction.sd),
    ):
        cells = "  ".join(
            f"{float(m):5.2f} +- {float(s):.2f}" for m, s in zip(means, sds, strict=True)
        )
        print(f"{name:10}  {loss:5.1f}   {cells}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    pyro.clear_param_store()
    main(**({"epochs": 3} if parser.parse_args().quick else {}))
