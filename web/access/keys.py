"""The key that signs session cookies: made at the first start, kept in a file that only its owner reads."""

import contextlib
import os
import secrets
from pathlib import Path


def session_key(path: Path) -> bytes:
    """Read the key in ``path``; make it, mode 600, when it is not there.

    Several programs may start at once: the key appears under its name whole or not at all, and the first one stays.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_bytes()
