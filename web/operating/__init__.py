"""For operators: health, metrics and commands."""
