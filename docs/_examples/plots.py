# %% plot_band
grid = np.linspace(-3, 3, 50)[:, None]
ax = pyrobbb.plots.plot_band(grid, posterior.predict(grid, seed=0), data=(x, y))
ax.figure.savefig("band.png")
# %% plot_intervals
ax = pyrobbb.plots.plot_intervals(prediction, y, level=0.9)
# %% plot_parts
ax = pyrobbb.plots.plot_parts(x, prediction)
# %% plot_uncertainty
ax = pyrobbb.plots.plot_uncertainty(class_prediction, labels)
# %% plot_coverage
figure, ax = plt.subplots()
pyrobbb.plots.plot_coverage(prediction, y, ax=ax)
# %% plot_reliability
ax = pyrobbb.plots.plot_reliability(class_prediction, labels)
# %% plot_history
ax = pyrobbb.plots.plot_history(posterior.history)
# %% plot_search
from pyrobbb import BBBRegressor

x, y = rng.normal(size=(200, 1)), rng.normal(size=200)
model = BBBRegressor(likelihood="gaussian", epochs=50, random_state=0).fit(x, y)
ax = pyrobbb.plots.plot_search(model)
# %% plot_weights
ax = pyrobbb.plots.plot_weights(posterior, "2.weight")
# %% plot_snr
ax = pyrobbb.plots.plot_snr(posterior)
# %% plot_forest
tree = fit(network, x, y, restarts=2, **options).to_arviz(x, y, seed=0)
axes = pyrobbb.plots.plot_forest(tree, ["mean"], coords={"obs": [0, 1, 2]})
# %% plot_khat
ax = pyrobbb.plots.plot_khat(posterior.to_arviz(x, y, seed=0))
# %% plot_loo_pit
ax = pyrobbb.plots.plot_loo_pit(posterior.to_arviz(x, y, seed=0))
# %% plot_ppc
ax = pyrobbb.plots.plot_ppc(posterior.to_arviz(x, y, seed=0))
# %% plot_nuts
tiny = BayesianNetwork(mlp(1, [], 1, seed=0), priors.Normal(1.0), likelihoods.Gaussian(0.5))
sampling = {"n_draws": 20, "n_warmup": 20, "n_chains": 1}
ax = pyrobbb.plots.plot_nuts(pyrobbb.compare_with_nuts(tiny, x, y, **sampling, **options))
# %% plot_sbc
tiny = BayesianNetwork(mlp(1, [], 1, seed=0), priors.Normal(1.0), likelihoods.Gaussian(0.5))
result = pyrobbb.sbc(tiny, x, n_sims=5, n_draws=9, seed=0, epochs=20, progress=False)
axes = pyrobbb.plots.plot_sbc(result)
# %% plot_risk_coverage
ax = pyrobbb.plots.plot_risk_coverage(class_prediction, labels)
