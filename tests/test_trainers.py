"""Trainers that own the loop: the code of docs/trainers.md and examples/lightning_trainer.py."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from support import X, Y, small_network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import FusedELBO, MeanFieldGuide, fit

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "trainers.md").read_text("utf-8"), re.S
)
N_DATA, LR = 20, 0.01
DATA = torch.as_tensor(X[:N_DATA]), torch.as_tensor(Y[:N_DATA])


def module_of_example(lightning):
    """Import the example with a given package in the place of Lightning."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "lightning", lightning)
        file = ROOT / "examples" / "lightning_trainer.py"
        spec = importlib.util.spec_from_file_location("lightning_trainer", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


class LightningModule(nn.Module):
    """What the example needs of Lightning's class."""

    def log(self, name, value, **options):
        self.logged = {name: float(value.detach())}


def parts():
    network = small_network()
    return network, MeanFieldGuide(network)


def test_the_step_of_the_example_has_the_loss_and_gradients_of_pyro():
    example = module_of_example(types.SimpleNamespace(LightningModule=LightningModule))
    network, guide = parts()
    module = example.BayesByBackprop(network, guide, 100)
    pyro.set_rng_seed(1)
    loss = module.training_step(DATA)
    loss.backward()
    other_network, other_guide = parts()
    pyro.set_rng_seed(1)
    elbo = TraceMeanField_ELBO()
    expected = elbo.differentiable_loss(other_network, other_guide, *DATA, n_data=100)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert module.logged == {"nelbo": float(loss.detach())}
    for one, other in zip(guide.parameters(), other_guide.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    (group,) = module.configure_optimizers().param_groups
    assert {id(parameter) for parameter in guide.parameters()} <= set(map(id, group["params"]))


@pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec", "ignore:.*many workers", "ignore:.*logging interval"
)
def test_lightning_takes_the_steps_of_a_loop_by_hand(tmp_path):
    lightning = pytest.importorskip("lightning", reason="needs Lightning")
    example = module_of_example(lightning)
    network, guide = parts()
    loader = DataLoader(TensorDataset(*DATA), 10)
    pyro.set_rng_seed(2)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(example.BayesByBackprop(network, guide, N_DATA), loader)
    other_network, other_guide = parts()
    nelbo = FusedELBO("mean_field")(other_network, other_guide)
    optimizer = torch.optim.Adam(nelbo.parameters(), lr=example.LR)
    pyro.set_rng_seed(2)
    for _ in range(3):
        for batch in loader:
            optimizer.zero_grad()
            nelbo(*batch, n_data=N_DATA).backward()
            optimizer.step()
    for one, other in zip(guide.parameters(), other_guide.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_loop_of_the_page_finds_the_posterior_of_fit(capsys):
    code = BLOCKS[0].replace("range(200)", "range(400)")
    pyro.set_rng_seed(0)
    found = {}
    exec(compile(code, "docs/trainers.md", "exec"), found)
    assert "tensor" in capsys.readouterr().out
    x, y, network = found["x"], found["y"], found["network"]
    posterior = fit(
        network,
        x,
        y,
        epochs=400,
        batch_size=64,
        lr=LR,
        schedule="constant",
        kl_warmup=0,
        objective="mean_field",
        engine="fused",
        seed=0,
        progress=False,
    )
    elbo = FusedELBO("mean_field", num_particles=500)
    nelbo = [
        elbo.loss(network, found["guide"], x, y),
        elbo.loss(posterior.network, posterior.guide, x, y),
    ]
    # Where Adam stands at a constant rate varies by a few nats.
    assert nelbo[0] == pytest.approx(nelbo[1], abs=0.1 * nelbo[1])


def test_the_class_of_the_page_is_that_of_the_example():
    """But for the number that is a constant there."""
    example = (ROOT / "examples" / "lightning_trainer.py").read_text("utf-8")
    of_page = BLOCKS[1].split("\n\n\n")[0].replace("lr=0.01", "lr=LR")
    without_comments = re.sub(r"  #.*", "", example)
    assert of_page in without_comments
    assert "BATCH, LR = 256, 64, 0.01" in example
