"""scikit-learn estimators."""

from .base import BBBClassifier, BBBRegressor

__all__ = ["BBBClassifier", "BBBRegressor"]
