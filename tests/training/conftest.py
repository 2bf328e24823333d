"""Tests of ``training/``: they need the packages of the `training` group (`make test-training`)."""

import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The imports of TensorFlow and its dependencies give warnings that this repository cannot fix.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore NumPy 2's warning about the way in which Keras reads TensorFlow's variables."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))
