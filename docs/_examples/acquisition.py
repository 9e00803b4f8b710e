# %% bald
print(pyrobbb.acquisition.bald(class_prediction)[:3])  # nats
# %% variance
print(pyrobbb.acquisition.variance(prediction)[:3])
# %% batch_bald
rows, gain = pyrobbb.acquisition.batch_bald(class_posterior, x, 5, seed=0)
# %% epig
print(pyrobbb.acquisition.epig(class_posterior, x, x[:20], seed=0)[:3])
# %% select
pool = rng.uniform(-3, 3, (500, 1))
rows = pyrobbb.acquisition.select(class_posterior, pool, 5, "batch_bald", seed=0)
