# %% to_botorch
from pyrobbb.surrogates import to_botorch

model = to_botorch(posterior, n_draws=50, seed=0)  # or posterior.to_botorch(50, seed=0)
at = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
print(model.posterior(at).values.shape)  # draws, rows, outputs
