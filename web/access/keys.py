"""The key that signs session cookies. It is made at the first start and kept in a file that only its owner reads."""

import contextlib
import os
import secrets
from pathlib import Path


def read_session_key(path: Path) -> bytes:
    """Return the key in the file ``path``, which is created with mode 600 when it does not exist.

    Several programs may start at once. So the key is written under another name first and then linked to
    ``path``, where the first one stays.
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
