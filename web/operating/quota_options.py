"""The options of the operator's commands that give a lab quotas of its own."""

import functools
from collections.abc import Callable
from typing import Any

import click

from dermq.models import MOST_IDS

_QUOTAS = {
    "max_waiting_images": "Images that may wait at one time.",
    "max_kept_bytes": "Bytes of all its files together.",
    "max_open_batches": "Batches that may be open at one time.",
    "max_requests_per_minute": "Requests it may make in a minute.",
}


class _Quota(click.ParamType[int]):
    """A positive whole number, or ``default`` for the value of the settings, which becomes 0."""

    name = "number|default"

    def convert(self, value: Any, parameter: Any, context: Any) -> int:
        if value == "default":
            return 0
        if not (str(value).isdecimal() and 0 < int(value) < (MOST_IDS if "bytes" in parameter.name else 2**31)):
            self.fail(f"{value!r} is not accepted; a whole number greater than 0, or the word default, is.")
        return int(value)


def add(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each quota, and those that were given as ``own``."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        numbers = {name: given.pop(name) for name in _QUOTAS}
        own = {name: value or None for name, value in numbers.items() if value is not None}
        command(**given, own=own)

    for name, meaning in reversed(_QUOTAS.items()):
        run = click.option(f"--{name.replace('_', '-')}", name, type=_Quota(), help=meaning)(run)
    return run
