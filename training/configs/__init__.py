"""Training configurations: Python code, one module each, whose docstring states command, cost and expected result."""
