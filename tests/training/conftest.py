"""Tests of ``training/``: they need the packages of the `training` group (`make test-training`)."""

import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow and its companions warn about each other while they are imported; their warnings are not ours to mend.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Keras read TensorFlow's variables the way it does; NumPy 2 warns about it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))
