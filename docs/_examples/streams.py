# %% Parquet
import pandas as pd

pd.DataFrame({"a": x[:, 0], "target": y[:, 0]}).to_parquet("rows.parquet")
rows = pyrobbb.streams.Parquet("rows.parquet", target=["target"])
posterior = fit(network, rows, epochs=2, progress=False)
# %% MappedRows
np.save("x.npy", x)
rows = pyrobbb.streams.MappedRows(np.load("x.npy", mmap_mode="r"), y)
print(rows.n_data, rows.n_chunks)
# %% Shuffle
order = pyrobbb.streams.Shuffle(pyrobbb.streams.MappedRows(x, y), seed=[0])
for where, (x_chunk, y_chunk) in order.pieces():
    print(where, len(x_chunk), len(y_chunk))
# %% check_shard
pyrobbb.streams.check_shard((0, 4))  # the first of four parts
# %% plan_chunks
rows, memory = pyrobbb.streams.plan_chunks(x, None, max_memory=2**28)
# %% n_known_rows
print(pyrobbb.streams.n_known_rows(x), pyrobbb.streams.n_known_rows(iter([x])))
# %% chunks_of
print([len(chunk) for chunk in pyrobbb.streams.chunks_of(x, 25)])
