# %% ColumnEncoder
import pandas as pd

frame = pd.DataFrame({"size": x[:, 0], "town": rng.choice(["Bonn", "Ulm"], len(x))})
encoder = pyrobbb.columns.ColumnEncoder.of(frame)
print(encoder, encoder.inputs, encoder.encode(frame).shape)
# %% EncodingReport
import pandas as pd

frame = pd.DataFrame({"town": ["Bonn", "Ulm"] * 10})
report = pyrobbb.columns.EncodingReport()
pyrobbb.columns.ColumnEncoder.of(frame).encode(pd.DataFrame({"town": ["Rome"]}), report)
print(*report.messages())
