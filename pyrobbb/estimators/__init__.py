"""scikit-learn estimators: BBBRegressor and BBBClassifier.

Inputs and target are standardised inside, and the tails of the inputs compressed; all results are
in the units of y.
"""

from .classifier import BBBClassifier
from .regressor import BBBRegressor

__all__ = ["BBBClassifier", "BBBRegressor"]
