# %% Units
units = pyrobbb.export.Units(loc=torch.tensor(5.0), scale=torch.tensor(2.0))  # of 5 + 2 y
# %% export_chains
from pyrobbb.export import export_chains

export_chains(posterior.chains, "model.pt2", n_draws=20, seed=0, quantiles=())
