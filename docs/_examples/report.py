# %% write
import pandas as pd

frame = pd.DataFrame({"size": x[:, 0], "price": y[:, 0]})
schema = pyrobbb.tables.Schema.of(frame, "price")
model = pyrobbb.BBBRegressor(likelihood="gaussian", epochs=20, restarts=1, random_state=0)
model.fit(schema.encode(frame), schema.target(frame))
pyrobbb.report.write("report.html", model, schema, frame)
