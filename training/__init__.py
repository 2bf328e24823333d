"""From HAM10000 to a bundle: data, model, training, calibration, evaluation, export.

It imports only ``dermq``, and shares only ``dermq.imaging`` and the bundle on disk with the worker.
"""
