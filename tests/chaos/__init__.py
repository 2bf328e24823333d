"""Faults done to a whole running system, each with a row that says what it cost: ``make chaos``."""
