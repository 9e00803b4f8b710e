"""last_layer(): the posterior of the last linear layer of a network, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .._core.arrays import ArrayLike
from .._core.global_state import ordinary_modes
from .._core.signatures import suggests_arguments
from ..last_layers import fit_last_layer
from ..likelihoods import Likelihood
from ..model.network import BayesianNetwork
from .posterior import Posterior


@suggests_arguments()
@ordinary_modes(grad=False)
def last_layer(
    network: BayesianNetwork | nn.Module,
    x: ArrayLike,
    y: ArrayLike,
    *,
    likelihood: str | Likelihood | None = None,
    prior_scale: float | None = None,
    noise_scale: float | Sequence[float] | None = None,
) -> Posterior:
    """Return the posterior of the last linear layer of a network, without a fit by steps.

    The features, which are the inputs of that layer and a constant 1 for its bias, are computed
    once, in evaluation mode; all other weights keep their values. The covariance is dense.

    For a Gaussian likelihood this is Bayesian linear regression: the posterior is exact, and the
    scales of prior and noise that are not given maximise the evidence, separately for each column
    of y. Standardise y, because the bias has the same prior as the weights. For classes, a normal
    distribution of all weights maximises a lower bound on the evidence, the tilted bound of Knowles
    and Minka; so does the scale of the prior. For a Bernoulli likelihood with several outputs each
    has a posterior and a scale of its own.

    Parameters
    ----------
    network : BayesianNetwork or nn.Module
        It must return the output of an `nn.Linear`. It is not changed; frozen parameters
        (``requires_grad=False``) are shared with the result, all others copied.
    x, y : array-like of shape (n, ...)
        As for `fit`, in memory.
    likelihood : Gaussian, Bernoulli or Categorical, optional
        Or ``"gaussian"``, ``"bernoulli"``, ``"categorical"``. Only with an `nn.Module`; by default
        `Gaussian`.
    prior_scale : float, optional
        Standard deviation of centred normal priors of all weights. None: that of the network, if
        its priors of the layer are normal with given scales; otherwise chosen by the evidence.
    noise_scale : float or sequence of float, optional
        For a Gaussian likelihood, the standard deviation of the noise, or one for each column of y.
        None: that of the likelihood if it is given; otherwise chosen by the evidence.

    Returns
    -------
    Posterior
        With a `DenseGuide` and a network in which only the last layer has a prior; prior and
        likelihood have the scales that were chosen. ``settings`` has them too, as ``prior_scale``
        and ``noise_scale``, and ``log_evidence``, which for classes is the bound. `update` adds
        further rows by exact conditioning if the likelihood is Gaussian.

    Raises
    ------
    TypeError, ValueError
        If an argument or the data are invalid, or the network does not end in a linear layer.

    References
    ----------
    Bishop (2006), "Pattern Recognition and Machine Learning", sections 3.3 and 3.5.
    Knowles and Minka (2011), "Non-conjugate variational message passing for multinomial and binary
    regression", section 5.
    Harrison, Willes and Snoek (2024), "Variational Bayesian last layers".
    """
    chain = fit_last_layer(
        network,
        x,
        y,
        likelihood=likelihood,
        prior_scale=prior_scale,
        noise_scale=noise_scale,
    )
    return Posterior((chain,))
