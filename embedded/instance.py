"""One running dermq in one ``var/``: its folders, its lock and its port, checked before anything is touched."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from dermq.settings import Settings


class Refused(Exception):
    """Raised when dermq cannot start here; the text says why and what to do."""


def address(settings: Settings) -> str:
    """Where the web answers on this machine."""
    host = "127.0.0.1" if settings.web_host in ("0.0.0.0", "::", "") else settings.web_host
    return f"http://{host}:{settings.port}"


def make_folders(settings: Settings) -> None:
    """Make ``var/`` and its folders, closed to everybody else."""
    for folder in (settings.var_dir, logs(settings), run(settings)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def logs(settings: Settings) -> Path:
    """Folder of the programs' logs."""
    return settings.var_dir / "log"


def run(settings: Settings) -> Path:
    """Folder of what lives only while dermq runs."""
    return settings.var_dir / "run"


def token_path(settings: Settings) -> Path:
    """File that holds the local lab's access token, mode 600, for scripts."""
    return settings.var_dir / "local-token"


def lock(settings: Settings) -> TextIO:
    """Hold this ``var/`` until the returned file is closed. Raises Refused when another dermq holds it."""
    file = (run(settings) / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        where = file.read().strip() or "an address of its own"
        raise Refused(
            f"dermq runs already with the data in {settings.var_dir}, at {where}. Stop that one first, or start a "
            "second one beside it with its own data and port: DERMQ_VAR_DIR=var2 DERMQ_PORT=8001 make run"
        ) from None
    file.truncate(0)
    file.write(address(settings))
    file.flush()
    return file


def check_port(settings: Settings) -> None:
    """Raise Refused when something else listens on the web's port."""
    family = socket.AF_INET6 if ":" in settings.web_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: an old connection is no harm
        try:
            probe.bind((settings.web_host, settings.port))
        except OSError as err:
            raise Refused(_why_not(settings, err)) from err


def _why_not(settings: Settings, err: OSError) -> str:
    other = settings.port + 1 if settings.port < 65535 else 8000
    if err.errno == errno.EADDRINUSE:
        return (
            f"Port {settings.port} on {settings.web_host} is taken by another program. Stop it, or choose another "
            f"port: DERMQ_PORT={other} make run"
        )
    return f"Port {settings.port} on {settings.web_host} cannot be used: {os.strerror(err.errno or 0)}."
