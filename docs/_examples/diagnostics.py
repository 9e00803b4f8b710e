# %% diagnose
print(pyrobbb.diagnostics.diagnose(posterior, x, y, seed=0))  # or posterior.diagnose(x, y)
# %% Diagnosis
diagnosis = posterior.diagnose(x, y, seed=0)
assert isinstance(diagnosis, pyrobbb.diagnostics.Diagnosis)
print([check.key for check in diagnosis.checks], diagnosis["elbo"].verdict)
# %% Check
check: pyrobbb.diagnostics.Check = posterior.diagnose(x, y, seed=0)["elbo"]
print(check.value, check.verdict, check.advice, check.cure)
# %% elbo_gain
print(pyrobbb.diagnostics.elbo_gain(posterior, x, y, seed=0).gain)  # nats
# %% ElboGain
gain: pyrobbb.diagnostics.ElboGain = pyrobbb.diagnostics.elbo_gain(posterior, x, y, seed=0)
print(gain.gain, gain.standard_error, gain.matters)
# %% ess
tree = fit(network, x, y, restarts=2, **options).to_arviz(x, y, n_draws=100, seed=0)
print(pyrobbb.diagnostics.ess(tree)["mean"].min())
# %% rhat
tree = fit(network, x, y, restarts=2, **options).to_arviz(x, y, n_draws=100, seed=0)
print(pyrobbb.diagnostics.rhat(tree)["mean"].max())
# %% khat_of_chains
tree = posterior.to_arviz(x, y, seed=0)
print([tail.khat for tail in pyrobbb.diagnostics.khat_of_chains(tree)])
# %% khat_threshold
print(pyrobbb.diagnostics.khat_threshold(1000))
# %% loo
print(pyrobbb.diagnostics.loo(posterior.to_arviz(x, y, seed=0)).elpd)
# %% layers
print(pyrobbb.diagnostics.layers(posterior))
# %% dead_units
print(pyrobbb.diagnostics.dead_units(posterior))  # a share of the hidden units
