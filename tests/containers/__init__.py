"""The container files, run for real: ``make containers``."""
