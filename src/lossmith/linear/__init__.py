"""Linear models: scores = X·W + b under any loss, in scikit-learn's manner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossmith.linear.estimators import LinearClassifier, LinearRegressor

__all__ = ["LinearClassifier", "LinearRegressor"]


def __getattr__(name: str) -> Any:
    """Load the estimators, and scikit-learn with them, when one is asked for."""
    if name in __all__:
        from lossmith.linear import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'lossmith.linear' has no attribute {name!r}")
