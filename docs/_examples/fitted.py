# %% FittedChain
chain: pyrobbb.fitted.FittedChain = posterior.chains[0]
print(chain.settings, chain.history.nelbo[-1])
# %% History
history: pyrobbb.fitted.History = posterior.history
print(history.n_epochs, history.per_epoch().kl[-1])
# %% FitSettings
settings: pyrobbb.fitted.FitSettings = posterior.settings
print(settings.engine, settings["epochs"], dict(settings))
# %% list_chains
print(pyrobbb.fitted.list_chains("Two fits", [*posterior.chains, *posterior.chains]).text())
# %% raise_if_interrupted
pyrobbb.fitted.raise_if_interrupted(posterior.chains)  # a KeyboardInterrupt if one was
