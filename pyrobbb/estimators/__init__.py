"""scikit-learn estimators, which standardise inputs and target internally."""

from .classifier import BBBClassifier
from .regressor import BBBRegressor

__all__ = ["BBBClassifier", "BBBRegressor"]
