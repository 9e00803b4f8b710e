# %% fit_last_layer
chain = pyrobbb.last_layers.fit_last_layer(mlp(1, [8], 1, "tanh", seed=0), x, y)
# %% condition
chain = pyrobbb.last_layers.fit_last_layer(mlp(1, [8], 1, "tanh", seed=0), x[:50], y[:50])
chain = pyrobbb.last_layers.condition(chain, x[50:], y[50:])
# %% is_last_layer
print(pyrobbb.last_layers.is_last_layer(posterior.chains[0]))
