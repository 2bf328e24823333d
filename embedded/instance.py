"""The folders, the lock and the port of one running dermq. They are checked before the start changes anything."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from dermq.settings import Settings


class Refused(Exception):
    """Raised when dermq cannot start; the text says why and what to do."""


def make_address(settings: Settings) -> str:
    """Return the URL of the web program, as seen from this machine."""
    host = "127.0.0.1" if settings.web_host in ("0.0.0.0", "::", "") else settings.web_host
    return f"http://{host}:{settings.port}"


def make_folders(settings: Settings) -> None:
    """Make ``var/`` and its folders, with access for this user alone."""
    for folder in (settings.var_dir, find_logs_folder(settings), find_run_folder(settings)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def find_logs_folder(settings: Settings) -> Path:
    """Return the folder of the programs' logs."""
    return settings.var_dir / "log"


def find_run_folder(settings: Settings) -> Path:
    """Return the folder of files that are needed only while dermq runs: lock, socket, pid file."""
    return settings.var_dir / "run"


def find_token_path(settings: Settings) -> Path:
    """Return the path of the file with the local lab's access token. Scripts read it; its mode is 600."""
    return settings.var_dir / "local-token"


def lock(settings: Settings) -> TextIO:
    """Lock this ``var/`` until the returned file is closed. Raises Refused when another dermq has locked it."""
    file = (find_run_folder(settings) / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        where = file.read().strip() or "an unknown address"
        raise Refused(
            f"dermq is already running with the data in {settings.var_dir}, at {where}. Stop it first, or start a "
            "second dermq with its own data and port: DERMQ_VAR_DIR=var2 DERMQ_PORT=8001 make run"
        ) from None
    file.truncate(0)
    file.write(make_address(settings))
    file.flush()
    return file


def check_port(settings: Settings) -> None:
    """Raise Refused when the web's port cannot be used, for example because another program listens on it."""
    family = socket.AF_INET6 if ":" in settings.web_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: ignore TIME_WAIT
        try:
            probe.bind((settings.web_host, settings.port))
        except OSError as err:
            raise Refused(_explain(settings, err)) from err


def _explain(settings: Settings, err: OSError) -> str:
    other = settings.port + 1 if settings.port < 65535 else 8000
    if err.errno == errno.EADDRINUSE:
        return (
            f"Port {settings.port} on {settings.web_host} is used by another program. Stop it, or choose another "
            f"port: DERMQ_PORT={other} make run"
        )
    return f"Port {settings.port} on {settings.web_host} cannot be used: {os.strerror(err.errno or 0)}."
