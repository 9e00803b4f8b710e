# %% BayesianNetwork
net = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
network = BayesianNetwork(net, priors.FanInNormal(), likelihoods.Gaussian(scale=0.1))
print([name for name, _ in network.bayesian_parameters()])
# %% mlp
net = mlp(3, [50, 50], 1, "tanh", seed=0)
print(net)
# %% InputScale
net = mlp(1, [8], 1, input_scale=True, seed=0)  # begins with InputScale(1)
prior = priors.ByName({"inputs.log_scale": priors.Normal()}, priors.ScaleMixture(0.5, 1.0, 0.1))
scaled = fit(BayesianNetwork(net, prior), x, y, epochs=100, seed=0, progress=False)
print(scaled.summary("inputs.log_scale", seed=0))
# %% fit
posterior = fit(network, x, y, epochs=100, batch_size=20, restarts=2, seed=0, progress=False)
print(posterior, posterior.chains[0].history.nelbo[-1])
# %% last_layer
posterior = pyrobbb.last_layer(mlp(1, [30], 1, "tanh", seed=0), x, y)
print(posterior.settings["noise_scale"], posterior.settings["log_evidence"])
# %% Posterior
from pyrobbb import Posterior

print(posterior.predict(x[:3], n_draws=100, seed=0).mean)
print(posterior.summary(seed=0))  # a row for each site
print(posterior.summary("2.bias", seed=0))  # a row for each weight
posterior.plot.snr()
posterior.save("model")
posterior = Posterior.load("model")
# %% update
posterior = pyrobbb.update(posterior, x[:10] + 0.1, y[:10], epochs=50, seed=0, progress=False)
# %% stack
several = fit(network, x, y, restarts=2, kl_weight=[0.2, 1.0], epochs=50, progress=False)
several = pyrobbb.stack(several, x + 0.1, y, seed=0)  # in practice, on held-out rows
print([chain.settings["stacking_weight"] for chain in several.chains])
# %% prune
small = pyrobbb.prune(posterior, 0.5)
print((small.guide.scale == 0).sum())
# %% fresh_start
other = pyrobbb.fresh_start(network, seed=1)  # new initial weights; a copy
# %% NonFiniteLossError
try:
    fit(network, x, 1e30 * y, lr=1e6, epochs=50, progress=False)
except pyrobbb.NonFiniteLossError as error:
    print(error)
# %% Prediction
prediction: pyrobbb.Prediction = posterior.predict(x, seed=0)
print(prediction.log_prob(y).mean())
# %% RegressionPrediction
lower, upper = prediction.interval(0.9)
print(prediction.mean[0], prediction.epistemic_sd[0], prediction.aleatoric_sd[0])
print(prediction.rescaled(loc=10.0, scale=2.0).quantile([0.05, 0.95]).shape)
assert isinstance(prediction, pyrobbb.RegressionPrediction)
# %% ClassificationPrediction
print(class_prediction.probs[0], class_prediction.label[0], class_prediction.mutual_information[0])
assert isinstance(class_prediction, pyrobbb.ClassificationPrediction)
# %% Calibration
calibration = pyrobbb.Calibration.of(prediction.central_level(y))  # of rows that were held out
lower, upper = prediction.calibrated(calibration).interval(0.9)
# %% Standardizer
scaling = pyrobbb.Standardizer.of(x)
z = scaling.transform(x)
print(z.mean(), z.std(), np.allclose(scaling.inverse(z), x))
# %% BBBRegressor
from pyrobbb import BBBRegressor

model = BBBRegressor(likelihood="gaussian", epochs=100, restarts=1, random_state=0)
mean, sd = model.fit(x, y[:, 0]).predict(x, return_std=True)
lower, upper = model.predict_interval(x, 0.9)
# %% BBBClassifier
from pyrobbb import BBBClassifier

model = BBBClassifier(epochs=100, restarts=1, random_state=0).fit(x, labels)
print(model.predict_proba(x[:2]), model.predict_set(x[:2], 0.9))
# %% MeanFieldGuide
from pyrobbb import MeanFieldGuide

guide = MeanFieldGuide(network, init_scale=0.01)
print(guide.loc.shape, guide.scale.max())
# %% LowRankGuide
from pyrobbb import LowRankGuide

posterior = fit(network, x, y, guide=LowRankGuide(network, rank=3), **options)
# %% DenseGuide
posterior = pyrobbb.last_layer(mlp(1, [8], 1, "tanh", seed=0), x, y)
assert isinstance(posterior.guide, pyrobbb.DenseGuide)
# %% init_loc_fn
from pyro.infer.autoguide import AutoDiagonalNormal

start = {"init_loc_fn": pyrobbb.init_loc_fn(network), "init_scale": pyrobbb.init_scale(network)}
guide = AutoDiagonalNormal(network, **start)
# %% init_scale
print(pyrobbb.init_scale(network))
# %% auto_normal
guide = pyrobbb.auto_normal(network)  # Pyro's AutoNormal, from the weights of the module
draws = guide(torch.tensor(x, dtype=torch.float32))
# %% FusedELBO
from pyrobbb import FusedELBO, MeanFieldGuide

objective = FusedELBO()(network, MeanFieldGuide(network))
optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
loss = objective(torch.tensor(x).float(), torch.tensor(y).float())
loss.backward()
optimizer.step()
# %% crosscheck
check = pyrobbb.crosscheck(network, x, y, n_steps=3, n_draws=20)
print(check.ok)
# %% compare_with_nuts
tiny = BayesianNetwork(mlp(1, [], 1, seed=0), priors.Normal(1.0), likelihoods.Gaussian(0.5))
sampling = {"n_draws": 20, "n_warmup": 20, "n_chains": 1}
comparison = pyrobbb.compare_with_nuts(tiny, x, y, **sampling, **options)
print(comparison.table)
# %% sbc
tiny = BayesianNetwork(mlp(1, [], 1, seed=0), priors.Normal(1.0), likelihoods.Gaussian(0.5))
result = pyrobbb.sbc(tiny, x, n_sims=3, n_draws=9, seed=0, epochs=20, progress=False)
print(result.pit.keys())
# %% from_pyro
import pyro.distributions as dist
from pyro import sample
from pyro.infer import MCMC, NUTS

mcmc = MCMC(NUTS(lambda: sample("a", dist.Normal(0.0, 1.0))), 20, 20, disable_progbar=True)
mcmc.run()
print(pyrobbb.from_pyro(mcmc)["posterior"])
