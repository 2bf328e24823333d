"""The domain of dermq: tables, rules and stores that the web, the workers and training share."""

__version__ = "0.1.0"
