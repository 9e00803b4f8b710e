"""Small fits for the tests of the engines, and their comparison."""

import numpy as np
import support
import torch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(23, 1))


def network(dtype=torch.float64, **kwargs):
    return support.small_network(dtype=dtype, **kwargs)


def quick_fit(net=None, engine="fused", x=X, y=Y, **kwargs):
    """Fit in batches of 10, 10 and 3 rows."""
    return support.quick_fit(network() if net is None else net, x, y, engine=engine, **kwargs)


def trained_tensors(posterior):
    points = [point for _, point in posterior.network.point_parameters()]
    return [p.detach() for p in (posterior.guide.loc, posterior.guide.rho, *points)]


def assert_same_fit(one, other, rtol=0.0, atol=0.0):
    torch.testing.assert_close(trained_tensors(one), trained_tensors(other), rtol=rtol, atol=atol)
    for name in ("nll", "kl", "epoch", "n_rows", "validation_nll"):
        np.testing.assert_allclose(
            getattr(one.history, name), getattr(other.history, name), rtol=rtol, atol=100 * atol
        )


def python_loop(step, carry, by_step, data, max_steps, model):
    """Replace `compile_loop` with a loop in Python over the same steps."""

    def loop(carry, by_step, data):
        assert len(by_step[0]) <= max_steps
        results = []
        for i in range(len(by_step[0])):
            *carry, result = step(*carry, *(tensor[i] for tensor in by_step), *data)
            results.append(result)
        return carry, torch.stack(results)

    return loop


def messages_between_start_and_end(caplog):
    """Return what a fit logs, except for the lines at its start and its end."""
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if not message.startswith(("Fitting", "Fitted"))]
