# %% load_mnist
images, digits = pyrobbb.datasets.load_mnist("train")  # downloaded, or from a folder
# %% load_fashion_mnist
images, kinds = pyrobbb.datasets.load_fashion_mnist("test", folder="data")
# %% load_mushroom
features, is_edible = pyrobbb.datasets.load_mushroom()
# %% read_idx
from pathlib import Path

Path("two.idx").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
print(pyrobbb.datasets.read_idx("two.idx"))
