# %% to_arviz
tree = pyrobbb.arviz_io.to_arviz(posterior, x, y, seed=0)  # or posterior.to_arviz(x, y)
print(list(tree.children))
