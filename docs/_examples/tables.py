# %% fit_table
import pandas as pd

frame = pd.DataFrame({"size": x[:, 0], "price": y[:, 0]})
frame.to_csv("houses.csv", index=False)
fast = {"likelihood": "gaussian", "epochs": 20, "restarts": 1, "random_state": 0}
fitted = pyrobbb.tables.fit_table("houses.csv", "price", "model", **fast)
print(fitted.notes)
# %% TableFit
import pandas as pd

frame = pd.DataFrame({"size": x[:, 0], "price": y[:, 0]})
frame.to_csv("houses.csv", index=False)
fast = {"likelihood": "gaussian", "epochs": 20, "restarts": 1, "random_state": 0}
fitted = pyrobbb.tables.fit_table("houses.csv", "price", "model", **fast)
assert isinstance(fitted, pyrobbb.tables.TableFit)
print(fitted.n_rows, fitted.seconds)
# %% TableModel
import pandas as pd

frame = pd.DataFrame({"size": x[:, 0], "price": y[:, 0]})
frame.to_csv("houses.csv", index=False)
fast = {"likelihood": "gaussian", "epochs": 20, "restarts": 1, "random_state": 0}
pyrobbb.tables.fit_table("houses.csv", "price", "model", **fast)
model = pyrobbb.tables.TableModel.load("model")
print(model.predict(model.schema.encode(frame), (0.05, 0.95)).keys())
# %% TableFile
import pandas as pd

pd.DataFrame({"size": x[:, 0], "price": y[:, 0]}).to_csv("houses.csv", index=False)
table = pyrobbb.tables.TableFile.of("houses.csv")
print(table.columns, len(table.read()))
# %% Schema
import pandas as pd

frame = pd.DataFrame({"size": x[:, 0], "price": y[:, 0]})
schema = pyrobbb.tables.Schema.of(frame, "price")
print(schema.task, schema.inputs, schema.encode(frame).shape)
# %% TableError
from pathlib import Path

Path("bad.csv").write_text("size,price\n1,2\n3\n")
try:
    pyrobbb.tables.TableFile.of("bad.csv").read()
except pyrobbb.tables.TableError as error:
    print(error)  # names file and line
# %% UserError
try:
    pyrobbb.tables.TableFile.of("missing.csv")
except pyrobbb.tables.UserError as error:
    print(error)
