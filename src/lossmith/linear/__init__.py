"""Linear models: scores = X·W + b under any loss."""
