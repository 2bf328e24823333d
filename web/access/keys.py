"""Secrets that are made at the first start and kept in files that only their owner reads."""

import contextlib
import os
import secrets
from pathlib import Path

_LEAST_TOKEN_LENGTH = 16


def read_session_key(path: Path) -> bytes:
    """Return the key that signs the cookies of sessions, from the file ``path``, which is made when it is missing."""
    return _read_or_make(path, secrets.token_bytes(32))


def read_metrics_token(path: Path) -> str:
    """Return the token for ``/metrics``, from the file ``path``, which is made when it is missing.

    Raises ValueError when the token is so short that it could be guessed.
    """
    token = _read_or_make(path, secrets.token_urlsafe(32).encode()).decode().strip()
    if len(token) < _LEAST_TOKEN_LENGTH or not token.isascii():
        raise ValueError(f"The token in {path} is not valid: {_LEAST_TOKEN_LENGTH} ASCII characters or more are.")
    return token


def _read_or_make(path: Path, made: bytes) -> bytes:
    """Return the content of ``path``, which is created with mode 600 and the content ``made`` when it does not exist.

    Several programs may start at once. So the content is written under another name first and then linked to
    ``path``, where the first one stays.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_bytes()
