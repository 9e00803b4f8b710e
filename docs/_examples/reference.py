# %% nelbo_and_gradients
from pyrobbb import reference

parts = {"prior": reference.GaussianPrior(1.0), "likelihood": reference.GaussianLikelihood(0.1)}
mu, rho = reference.initialise([1, 5, 1], rng)
eps = [[(rng.normal(size=w.shape), rng.normal(size=b.shape)) for w, b in mu]]
cost = reference.nelbo_and_gradients(mu, rho, eps, x, y, **parts)
print(cost.nelbo, cost.d_rho[0][0].shape)
# %% Gradients
from pyrobbb import reference

parts = {"prior": reference.GaussianPrior(1.0), "likelihood": reference.GaussianLikelihood(0.1)}
mu, rho = reference.initialise([1, 5, 1], rng)
eps = [[(rng.normal(size=w.shape), rng.normal(size=b.shape)) for w, b in mu]]
cost: reference.Gradients = reference.nelbo_and_gradients(mu, rho, eps, x, y, **parts)
print(cost.nll, cost.kl, cost.d_mu[0][0].shape)
# %% train
from pyrobbb import reference

parts = {"prior": reference.GaussianPrior(1.0), "likelihood": reference.GaussianLikelihood(0.1)}
trained = reference.train(x, y, hidden=[5], n_steps=200, activation="tanh", **parts)
print(trained.nelbo[[0, -1]])
# %% Trained
from pyrobbb import reference

parts = {"prior": reference.GaussianPrior(1.0), "likelihood": reference.GaussianLikelihood(0.1)}
trained: reference.Trained = reference.train(x, y, hidden=[5], n_steps=50, **parts)
print(trained.mu[0][0].shape, trained.activation)
# %% predict
from pyrobbb import reference

parts = {"prior": reference.GaussianPrior(1.0), "likelihood": reference.GaussianLikelihood(0.1)}
trained = reference.train(x, y, hidden=[5], n_steps=50, **parts)
print(reference.predict(trained, x, n_draws=100, seed=0).shape)
# %% initialise
from pyrobbb import reference

mu, rho = reference.initialise([3, 5, 1], rng)
print([w.shape for w, _ in mu])
# %% feedforward
from pyrobbb import reference

mu, _ = reference.initialise([1, 5, 1], rng)
output, cache = reference.feedforward(mu, x)
# %% backpropagate
from pyrobbb import reference

mu, _ = reference.initialise([1, 5, 1], rng)
output, cache = reference.feedforward(mu, x)
gradients = reference.backpropagate(mu, cache, d_output=(output - y) / 0.1**2)
# %% sample
from pyrobbb import reference

mu, rho = reference.initialise([1, 5, 1], rng)
eps = [(rng.normal(size=w.shape), rng.normal(size=b.shape)) for w, b in mu]
weights = reference.sample(mu, rho, eps)
# %% GaussianPrior
from pyrobbb import reference

prior = reference.GaussianPrior(scale=1.0)
print(prior.log_prob(np.zeros(3)), prior.score(np.ones(3)))
# %% MixturePrior
from pyrobbb import reference

prior = reference.MixturePrior(pi=0.5, scale1=1.0, scale2=0.0025)
print(prior.log_prob(np.zeros(3)), prior.score(np.ones(3)))
# %% GaussianLikelihood
from pyrobbb import reference

likelihood = reference.GaussianLikelihood(scale=0.1)
print(likelihood.nll(np.zeros((60, 1)), y), likelihood.d_nll(np.zeros((60, 1)), y).shape)
# %% BernoulliLikelihood
from pyrobbb import reference

likelihood = reference.BernoulliLikelihood()
print(likelihood.nll(x, labels[:, None]), likelihood.d_nll(x, labels[:, None]).shape)
# %% CategoricalLikelihood
from pyrobbb import reference

likelihood = reference.CategoricalLikelihood()
print(likelihood.nll(np.zeros((60, 2)), labels))
# %% softplus
from pyrobbb import reference

print(reference.softplus(np.array([-1000.0, 0.0, 1000.0])))
# %% log_softplus
from pyrobbb import reference

print(reference.log_softplus(np.array([-1000.0, 0.0])))
# %% sigmoid
from pyrobbb import reference

print(reference.sigmoid(np.array([-1000.0, 0.0, 1000.0])))
# %% log_softmax
from pyrobbb import reference

print(reference.log_softmax(np.array([[0.0, 1000.0]])))
