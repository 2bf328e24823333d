"""``python -m tests.hung_worker classify``: a worker whose engine hangs in native code and holds the GIL."""

import ctypes
import sys
from typing import Any, NoReturn

from worker import __main__
from worker.classify import prediction


def _hang(*_: Any) -> NoReturn:
    native = ctypes.PyDLL(None)  # calls do not release the GIL
    mutex = ctypes.create_string_buffer(256)
    native.pthread_mutex_init(mutex, None)
    while True:
        native.pthread_mutex_lock(mutex)  # the second lock waits for ever, and no signal interrupts it


prediction.Predictor._run_engine = _hang  # type: ignore[assignment, method-assign]

if __name__ == "__main__":
    sys.exit(__main__.main())
