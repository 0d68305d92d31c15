"""Names, limits, errors and messages: pure values that import nothing else of ours."""
