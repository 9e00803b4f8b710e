"""The training loop: Ctrl-C and the progress bar."""

import numpy as np
import torch
from ragged_fits import X, quick_fit
from torch import nn

from pyrobbb import BayesianNetwork


def test_ctrl_c_returns_the_fit_so_far(caplog):
    class Interrupting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, x):
            self.calls += self.training
            if self.training and self.calls == 6:
                raise KeyboardInterrupt
            return self.net(x)

    posterior = quick_fit(BayesianNetwork(Interrupting()))
    assert len(posterior.history.nelbo) == len(posterior.history.n_rows) == 5
    assert "Interrupted after 5 steps" in caplog.text
    assert np.isfinite(posterior.predict(X).mean).all()


def test_progress_bar_shows_the_loss_and_its_parts(capsys):
    quick_fit(progress=True)
    shown = capsys.readouterr()
    assert all(word in shown.err for word in ("nelbo=", "nll=", "kl=", "3/3"))
    assert shown.out == ""
