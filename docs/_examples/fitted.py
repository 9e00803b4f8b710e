# %% FittedChain
chain: pyrobbb.fitted.FittedChain = posterior.chains[0]
print(chain.settings, chain.history.nelbo[-1])
# %% History
history: pyrobbb.fitted.History = posterior.history
print(history.n_epochs, history.per_epoch().kl[-1])
# %% FitSettings
settings: pyrobbb.fitted.FitSettings = posterior.settings
print(settings.engine, settings["epochs"], dict(settings))
