"""From HAM10000 to a bundle: data, model, training, calibration, evaluation, export.

Imports ``dermq`` only. What it shares with the worker is ``dermq.imaging`` and the bundle on disk.
"""
