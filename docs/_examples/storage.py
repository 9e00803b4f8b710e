# %% write
pyrobbb.storage.write("model", posterior.chains, extra={"who": "me"})
# %% read
posterior.save("model")
chains = pyrobbb.storage.read("model")
# %% read_extra
pyrobbb.storage.write("model", posterior.chains, extra={"who": "me"})
extra, tensors = pyrobbb.storage.read_extra("model")
