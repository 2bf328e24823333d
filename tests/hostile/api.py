"""Requests that schemathesis makes of the OpenAPI document, against a real web process with images and a batch.

Schemathesis has an environment of its own, because it needs many packages that dermq does not: ``make hostile``
makes it. It checks that no answer is a 5xx, that each status, header and body is as the document says, and that what
the document forbids is refused.
"""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from dermq import access_tokens, bundles, db, labs
from dermq.models import Batch
from dermq.settings import ROOT, Settings
from dermq.storage.local import LocalStore
from tests import fakes, servers
from tests.browser.conftest import make_address, make_settings, run_program

SCHEMATHESIS = ROOT / ".venv-hostile" / "bin" / "schemathesis"
EXAMPLES = 40
"""Requests of each kind and call."""
SECONDS = 150
_CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "unsupported_method"),
    *("response_headers_conformance", "response_schema_conformance", "negative_data_rejection"),
)
"""Not ``ignored_auth``: it expects 401 for each wrong token, and many of them are 429 here."""
# Revoking the token that the other requests need, and a readiness that a web without workers does not have.
_LEFT_OUT = "^/api/v1/lab/tokens/|^/health/ready"


def run() -> list[str]:
    """Return what schemathesis found wrong with the API, and print what it says."""
    if not SCHEMATHESIS.exists():
        return [f"{SCHEMATHESIS} is missing: run make hostile"]
    with tempfile.TemporaryDirectory() as folder:
        settings = make_settings(Path(folder) / "var")
        servers.migrate(settings.database)
        with contextlib.closing(db.Sessions(settings.database)) as sessions:
            token, batch, doomed = _prepare(sessions, settings)
        with run_program(["gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"], settings, "live"):
            return _test(Path(folder), make_address(settings), token, batch, doomed)


def _prepare(sessions: db.Sessions, settings: Settings) -> tuple[str, Batch, Batch]:
    """Return a token, a batch with images, and one to be deleted."""
    lab = db.transact(sessions, labs.add, "hostile")
    token = db.transact(sessions, access_tokens.issue, lab, "hostile")
    blobs = LocalStore(settings.blobs)
    blobs.begin()
    made = [fakes.create(sessions, lab, bundles.find_current(settings.bundles_dir)) for _ in range(2)]
    for batch in made:
        fakes.add(sessions, blobs, settings, batch, {**fakes.pictures(3), "bad.jpg": b"\xff\xd8\xff"})
    return token, made[0], made[1]


def _test(folder: Path, url: str, token: str, batch: Batch, doomed: Batch) -> list[str]:
    (folder / "schemathesis.toml").write_text(
        f"""
[parameters]
"path.batch_id" = "{batch.id}"
"path.position" = 1

[[operations]]
include-name = "DELETE /api/v1/batches/{{batch_id}}"
parameters = {{ "path.batch_id" = "{doomed.id}" }}
"""
    )
    command = [
        *(str(SCHEMATHESIS), "--config-file", str(folder / "schemathesis.toml")),
        *("run", f"{url}/api/v1/openapi.json", "--url", url, "--exclude-path-regex", _LEFT_OUT),
        *("--header", f"Authorization: Bearer {token}", "--generation-with-security-parameters", "false"),
        *("--checks", ",".join(_CHECKS), "--max-examples", str(EXAMPLES), "--seed", "1", "--workers", "1"),
        *("--max-time", str(SECONDS), "--request-timeout", "30", "--suppress-health-check", "all", "--no-color"),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.hostile.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **hooks})
    print(done.stdout[-8_000:], done.stderr[-2_000:])
    return [] if done.returncode == 0 else [f"schemathesis ended with {done.returncode}; see above"]
