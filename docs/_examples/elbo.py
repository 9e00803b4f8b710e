# %% CannotFuseError
from pyro.infer.autoguide import AutoNormal

try:
    pyrobbb.FusedELBO().loss(network, AutoNormal(network), torch.zeros(5, 1), torch.zeros(5, 1))
except pyrobbb.elbo.CannotFuseError as error:
    print(error)
