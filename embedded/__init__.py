"""Runs dermq on one machine that has only Python: all programs under one process manager, supervisor."""
