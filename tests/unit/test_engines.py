"""The registry of engines: one file and one entry each."""

import importlib.util
import re
from pathlib import Path

import pytest

from dermq import errors
from dermq.settings import Settings
from worker.classify import engines


def test_every_entry_is_a_module_and_every_module_an_entry() -> None:
    folder = Path(engines.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(engines.ENGINES)


def test_an_engine_is_made_by_its_name() -> None:
    assert engines.create("onnx", step_images=4).name == "onnx"


def test_an_unknown_engine_makes_a_worker_unfit_and_names_those_that_there_are() -> None:
    known = ", ".join(("auto", *sorted(engines.ENGINES)))
    with pytest.raises(errors.Unfit, match=re.escape(f"no engine abacus; DERMQ_ENGINE must be one of {known}.")):
        engines.create("abacus", step_images=4)


def test_an_engine_whose_package_is_missing_makes_a_worker_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.Unfit, match="needs the package onnxruntime"):
        engines.create("onnx", step_images=4)


@pytest.mark.parametrize(("sees_gpu", "expected"), [(False, "onnxruntime"), (True, "keras")])
def test_auto_takes_keras_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch, sees_gpu: bool, expected: str) -> None:
    monkeypatch.setattr(engines, "_find_gpu", lambda: sees_gpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.Unfit, match=f"needs the package {expected},"):
        engines.create("auto", step_images=4)


def test_the_setting_names_every_engine() -> None:
    text = str(Settings.model_fields["engine"].description)
    assert {name for name in engines.ENGINES if f"`{name}`" in text} == set(engines.ENGINES)
