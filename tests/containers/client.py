"""What a lab does over HTTP, in as many words as the story needs."""

import csv
import io
import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

from tests.containers.engine import Failed, wait

_DONE = ("finished", "cancelled")


class Client:
    """One lab's token at one address."""

    def __init__(self, address: str, token: str, trusted: str | None = None) -> None:
        """``trusted`` is a certificate that signs the server's, in PEM."""
        self.address, self.token = address, token
        self.tls = ssl.create_default_context(cadata=trusted)

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "application/octet-stream") -> Any:
        """Make a call that a restarting web may refuse for a while, and return its body."""
        request = urllib.request.Request(f"{self.address}{path}", body, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.add_header("Content-Type", kind)
        for _ in range(60):
            try:
                with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
                    return answer.read()
            except urllib.error.HTTPError as err:
                if err.code not in (502, 503):
                    raise Failed(f"{method} {path}: {err.code} {err.read().decode(errors='replace')[:500]}") from err
            except OSError:
                pass
            time.sleep(0.5)
        raise Failed(f"{method} {path}: no answer within a minute")

    def status_code(self, path: str, **headers: str) -> int:
        """Ask without the token and with ``headers``, in whose names `_` stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.address}{path}", headers=named)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self.tls) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as err:
            return err.code

    def submit(self, name: str, archive: bytes) -> str:
        """Send an archive as one batch, seal it, and return its id."""
        body = json.dumps({"name": name}).encode()
        batch = json.loads(self.call("POST", "/api/v1/batches", body, "application/json"))["id"]
        self.call("PUT", f"/api/v1/batches/{batch}/archive", archive, "application/zip")
        self.call("POST", f"/api/v1/batches/{batch}/seal")
        return str(batch)

    def status(self, batch: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("GET", f"/api/v1/batches/{batch}"))
        return found

    def finish(self, batch: str, images: int, seconds: float = 900) -> float:
        """Wait until a batch has finished with every image done; return how long that took."""
        took = wait(lambda: self.status(batch)["state"] in _DONE, seconds, f"batch {batch} finishes")
        counts = self.status(batch)["counts"]
        if (counts["received"], counts["done"]) != (images, images):
            raise Failed(f"{images} images were sent: {counts}")
        return took

    def report(self, batch: str) -> list[dict[str, str]]:
        text = self.call("GET", f"/api/v1/batches/{batch}/report.csv").decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))
