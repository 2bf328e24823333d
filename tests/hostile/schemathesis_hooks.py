"""How schemathesis sends bodies of media types that it does not know: as the bytes or the text that it drew."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/zip", "image/*")
def send_raw(context: Any, value: Any) -> bytes:
    """Return a drawn body as bytes."""
    return value if isinstance(value, bytes) else str(value).encode()
