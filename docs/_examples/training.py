# %% EpochEnd
def stop_early(end: pyrobbb.training.EpochEnd) -> bool:
    return end.nelbo < 0


posterior = fit(network, x, y, callbacks=stop_early, **options)
# %% FitConfig
config = pyrobbb.training.FitConfig(network, x, y, epochs=20, seed=0, progress=False)
print(config.batch_size)
# %% fit_chains
config = pyrobbb.training.FitConfig(network, x, y, epochs=20, seed=0, progress=False)
chains = pyrobbb.training.fit_chains(config)
