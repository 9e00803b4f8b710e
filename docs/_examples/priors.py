# %% Normal
network = BayesianNetwork(mlp(1, [8], 1, seed=0), priors.Normal(scale=0.5))
learned = priors.Normal(scale="learned")
# %% FanInNormal
prior = priors.FanInNormal(gain=1.0)
print(prior("0.weight", torch.zeros(8, 100)).stddev[0, 0])  # 1 / sqrt(100)
# %% Laplace
network = BayesianNetwork(mlp(1, [8], 1, seed=0), priors.Laplace(scale=0.3))
# %% StudentT
network = BayesianNetwork(mlp(1, [8], 1, seed=0), priors.StudentT(df=3.0, scale=0.5))
# %% ScaleMixture
prior = priors.ScaleMixture(pi=0.5, scale1=1.0, scale2=0.0025)
print(prior("0.weight", torch.zeros(8, 1)).log_prob(torch.zeros(8, 1)))
# %% ByName
prior = priors.ByName({"*.bias": priors.Normal(1.0), "0.*": None}, default=priors.FanInNormal())
network = BayesianNetwork(mlp(1, [8], 1, seed=0), prior)  # "0.weight" is a point parameter
# %% Around
trained = mlp(1, [8], 1, "tanh", seed=0)
network = BayesianNetwork(trained, priors.Around(trained, scale=0.1))
# %% Given
loc = {name: p.detach().clone() for name, p in mlp(1, [8], 1, seed=0).named_parameters()}
prior = priors.Given(loc, {name: torch.full_like(p, 0.2) for name, p in loc.items()})
network = BayesianNetwork(mlp(1, [8], 1, seed=0), prior)
# %% Learned
prior = priors.Normal(scale=priors.Learned(median=0.5, log_sd=0.5))
network = BayesianNetwork(mlp(1, [8], 1, "tanh", seed=0), prior)
print(fit(network, x, y, **options).draws(50, seed=0)["0.weight_scale"].mean())
# %% ScaleFamily
prior = priors.Normal(scale="learned")
assert isinstance(prior, priors.ScaleFamily)
print(prior.site("0.weight"), prior.learned)
# %% ScaleMixtureNormal
parts = torch.tensor(0.5), torch.tensor(1.0), torch.tensor(0.1)
print(priors.ScaleMixtureNormal(*parts).log_prob(torch.tensor([0.0, 3.0])))
# %% fan_in
print(priors.fan_in(torch.zeros(8, 3)), priors.fan_in(torch.zeros(8)))
# %% scale_family
print(priors.scale_family(priors.Normal(1.0), "0.weight"))  # None: the scale is a number
