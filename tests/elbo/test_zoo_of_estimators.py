"""The modules of the zoo under draws for each row: computed, or refused with the reason."""

import pytest
import torch
from torch import nn
from zoo import ZOO

from pyrobbb import BayesianNetwork, MeanFieldGuide
from pyrobbb.elbo.fused_loss import FusedLoss
from pyrobbb.likelihoods import Gaussian

RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
COMPUTED = {  # some of those that must not be refused
    "perceptron",
    "conv1d",
    "conv2d",
    "depthwise dilated conv",
    "circular conv",
    "skip connection",
    "layer used twice",
    "siamese",
    "residual",
    "dropout",
    "fixed point",
    "buffer assigned",
    "attention by scaled dot products",
}


@pytest.mark.parametrize("estimator", ["local", pytest.param("flipout", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:enable_nested_tensor is True")
def test_a_module_has_the_loss_of_a_shared_draw_at_a_vanishing_scale_or_is_refused(name, estimator):
    specimen = ZOO[name]
    net, x = specimen.net().double(), specimen.x()
    x = x.double() if x.is_floating_point() else x
    network = BayesianNetwork(net, specimen.prior, Gaussian(1.0))
    guide = MeanFieldGuide(network)
    y = torch.zeros_like(specimen.net().double()(x.clone())).detach()
    points = tuple(point.detach() for _, point in network.point_parameters())
    noise, rho = torch.zeros_like(guide.loc), torch.full_like(guide.rho, -30.0)
    losses, refusal = [], None
    for each in (estimator, "reparam"):
        state = {key: value.clone() for key, value in net.state_dict().items()}
        try:
            loss = FusedLoss(network, guide, estimator=each)
            losses.append(loss((guide.loc.detach(), rho), points, noise, x, y))
        except ValueError as error:
            refusal = str(error)
            break
        net.load_state_dict(state)
    if refusal is not None:
        assert refusal.startswith(f"`estimator` '{estimator}'")
        assert name not in COMPUTED
        return
    ours, expected = losses
    if specimen.draws_numbers or any(isinstance(part, RANDOM) for part in net.modules()):
        assert bool(ours.d_loc.isfinite().all())
        return
    torch.testing.assert_close(ours.nll, expected.nll, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.d_loc, expected.d_loc, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.d_points, expected.d_points, rtol=1e-6, atol=1e-6)
