# %% CrossCheck
check = pyrobbb.crosscheck(network, x, y, n_steps=3, n_draws=20)
assert isinstance(check, pyrobbb.comparisons.CrossCheck)
print(check.table)
# %% Comparison
check = pyrobbb.crosscheck(network, x, y, n_steps=3, n_draws=20)
comparison: pyrobbb.comparisons.Comparison = check.comparisons[0]
print(comparison.quantity, comparison.route, comparison.difference, comparison.ok)
# %% NUTSComparison
tiny = BayesianNetwork(mlp(1, [], 1, seed=0), priors.Normal(1.0), likelihoods.Gaussian(0.5))
sampling = {"n_draws": 20, "n_warmup": 20, "n_chains": 1}
comparison = pyrobbb.compare_with_nuts(tiny, x, y, **sampling, **options)
assert isinstance(comparison, pyrobbb.comparisons.NUTSComparison)
print(comparison.by_input.head())
# %% SBC
tiny = BayesianNetwork(mlp(1, [], 1, seed=0), priors.Normal(1.0), likelihoods.Gaussian(0.5))
result = pyrobbb.sbc(tiny, x, n_sims=3, n_draws=9, seed=0, epochs=20, progress=False)
assert isinstance(result, pyrobbb.comparisons.SBC)
print(result.ranks.keys(), result.n_draws)
