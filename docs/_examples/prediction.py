# %% fit_temperature
from pyrobbb.prediction import fit_temperature

temperature = fit_temperature(class_prediction.probs, labels)  # of rows that were held out
probs = class_prediction.tempered(temperature).probs
# %% set_levels
from pyrobbb.prediction import set_levels

levels = set_levels(class_prediction.probs, rng.uniform(size=60))
sets = levels <= 0.9  # the classes of each row
# %% make_prediction
from torch.distributions import Independent, Normal

from pyrobbb.prediction import make_prediction

draws = Independent(Normal(torch.randn(100, 5, 1), 0.5), 1)  # 100 draws of 5 rows
print(make_prediction([draws], torch.zeros(5, 1)).epistemic_sd)
