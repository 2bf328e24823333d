"""A worker whose engine hangs in native code and lets no other thread run: ``python -m tests.hung_worker classify``."""

import ctypes
import sys
from typing import Any, NoReturn

from worker import __main__
from worker.classify import prediction


def _hang(*_: Any) -> NoReturn:
    native = ctypes.PyDLL(None)  # keeps Python's lock
    mutex = ctypes.create_string_buffer(256)
    native.pthread_mutex_init(mutex, None)
    while True:
        native.pthread_mutex_lock(mutex)  # the second time waits for ever, and no signal wakes it


prediction.Predictor._engine_outputs = _hang  # type: ignore[assignment, method-assign]

if __name__ == "__main__":
    sys.exit(__main__.main())
