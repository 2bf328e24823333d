"""Training configurations, one module each. The module's docstring states command, cost and expected result."""
