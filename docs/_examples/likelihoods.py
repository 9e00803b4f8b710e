# %% Gaussian
known = likelihoods.Gaussian(scale=0.1)
learned = likelihoods.Gaussian(noise_median=0.2)
network = BayesianNetwork(mlp(1, [8], 1, seed=0), likelihood=learned)
# %% HeteroscedasticGaussian
noisy = BayesianNetwork(
    mlp(1, [8], 2, "tanh", seed=0), likelihood=likelihoods.HeteroscedasticGaussian()
)
print(fit(noisy, x, y, **options).predict(x[:2], seed=0).aleatoric_sd)
# %% LogNormal
positive = BayesianNetwork(mlp(1, [8], 1, seed=0), likelihood=likelihoods.LogNormal())
print(fit(positive, x, np.exp(y), **options).predict(x[:2], seed=0).mean)
# %% StudentT
robust = BayesianNetwork(mlp(1, [8], 1, seed=0), likelihood=likelihoods.StudentT(df=4.0))
print(fit(robust, x, y, **options).predict(x[:2], seed=0).sd)
# %% Bernoulli
binary = BayesianNetwork(mlp(1, [8], 1, seed=0), likelihood=likelihoods.Bernoulli())
print(fit(binary, x, labels[:, None], **options).predict(x[:2], seed=0).probs)
# %% Categorical
classes = BayesianNetwork(mlp(1, [8], 2, seed=0), likelihood=likelihoods.Categorical())
print(fit(classes, x, labels, **options).predict(x[:2], seed=0).probs)
# %% Poisson
counts = BayesianNetwork(mlp(1, [8], 1, seed=0), likelihood=likelihoods.Poisson())
print(fit(counts, x, rng.poisson(2.0, (60, 1)), **options).predict(x[:2], seed=0).mean)
# %% NegativeBinomial
counts = BayesianNetwork(mlp(1, [8], 1, seed=0), likelihood=likelihoods.NegativeBinomial())
print(fit(counts, x, rng.poisson(2.0, (60, 1)), **options).predict(x[:2], seed=0).sd)
