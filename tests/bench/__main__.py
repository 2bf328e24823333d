"""``make bench``: measures a whole system with a batch of real images, compared with the engine alone.

It starts ``python -m embedded`` in a folder of its own, uploads one archive, polls the status as a lab does, and
downloads the CSV report. It prints images per second of the system and of the engine, which is measured before and
after the batch, and the memory of web and worker. It asserts no figure, only that every image was counted once.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dermq import bundles, imaging
from dermq.settings import ROOT, Settings
from tests.conftest import SHARED
from tests.servers import free_port
from worker.classify import engines

ENGINE_SECONDS = 15.0
POLL_SECONDS = 1.0
_MB = 1_000_000


@dataclass
class System:
    """A running dermq: its address and the memory of its programs."""

    process: psutil.Popen
    base: str
    token: str
    peaks: dict[str, int] = field(default_factory=dict)

    def call(self, method: str, path: str, data: Any = None, kind: str = "application/json") -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        if hasattr(data, "seek"):
            headers["Content-Length"] = str(data.seek(0, os.SEEK_END))
            data.seek(0)
        request = urllib.request.Request(self.base + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=600) as answer:
            return bytes(answer.read())

    def weigh(self) -> dict[str, int]:
        """Measure the resident bytes of each program and keep the greatest value of each."""
        found: dict[str, int] = {}
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                program = _program(child)
                if program:
                    found[program] = found.get(program, 0) + child.memory_info().rss
        for program, size in found.items():
            self.peaks[program] = max(size, self.peaks.get(program, 0))
        return found


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--images", type=int, default=2_000, help="images of full_200x150.zip; 10015 is all of them")
    parser.add_argument("--database-url", default="", help="another database than SQLite, migrated or empty")
    parser.add_argument("--redis-url", default="", help="another Redis than the embedded Valkey")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dermq-bench-") as folder:
        archive = _archive(Path(folder), options.images)
        before = engine_rate(archive)
        with running(Path(folder), options.database_url, options.redis_url) as system:
            whole = classify(system, archive)
        after = engine_rate(archive)
    _print(whole, before, after, system.peaks)


def engine_rate(archive: Path) -> float:
    """Measure images per second of the engine alone, on decoded pixels."""
    settings = Settings()
    bundle = bundles.find_current(settings.bundles_dir)
    engine = engines.create(settings.engine, step_images=settings.step_images)
    engine.load(bundle)
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()[: settings.step_images]
        pixels = np.stack([imaging.prepare(file.read(name), bundle.card.input_size) for name in names])
    engine.predict(pixels)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < ENGINE_SECONDS:
        engine.predict(pixels)
        steps += 1
    return steps * len(pixels) / (time.perf_counter() - started)


@contextlib.contextmanager
def running(folder: Path, database_url: str, redis_url: str) -> Iterator[System]:
    """Run a whole dermq in ``folder``, and stop it at the end of the block."""
    port = free_port()
    environment = {**os.environ, "DERMQ_VAR_DIR": str(folder / "var"), "DERMQ_PORT": str(port)}
    environment |= {"DERMQ_DATABASE_URL": database_url} if database_url else {}
    environment |= {"DERMQ_REDIS_URL": redis_url} if redis_url else {}
    process = psutil.Popen(
        [sys.executable, "-m", "embedded"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(base)
        yield System(process, base, (folder / "var" / "local-token").read_text().strip())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def classify(system: System, archive: Path) -> dict[str, Any]:
    """Upload the archive as a batch and wait for its report; return the measured figures."""
    batch = json.loads(system.call("POST", "/api/v1/batches", b'{"name": "bench"}'))["id"]
    address = f"/api/v1/batches/{batch}"
    started = time.perf_counter()
    with archive.open("rb") as file:
        system.call("PUT", f"{address}/archive", file, "application/zip")
    uploaded = time.perf_counter()
    system.call("POST", f"{address}/seal")
    trail: list[tuple[int, int]] = []
    first: tuple[float, int] | None = None
    while True:
        status = json.loads(system.call("GET", address))
        counts, weights = status["counts"], system.weigh()
        ended = counts["done"] + counts["failed"]
        if first is None and ended:
            first = (time.perf_counter(), ended)
        trail.append((ended, weights.get("classify", 0)))
        if status["state"] == "finished":
            break
        time.sleep(POLL_SECONDS)
    finished = time.perf_counter()
    rows = list(csv.DictReader(io.StringIO(system.call("GET", f"{address}/report.csv").decode())))
    system.weigh()
    assert counts["received"] == counts["done"] + counts["failed"] + counts["cancelled"] == len(rows), counts
    assert first is not None
    return {
        "counts": counts,
        "rows": len(rows),
        "upload_seconds": uploaded - started,
        "seconds": finished - started,
        "rate": (ended - first[1]) / (finished - first[0]) if finished > first[0] else float("nan"),
        "trail": trail,
    }


def _archive(folder: Path, images: int) -> Path:
    source = SHARED / "ham10000" / "full_200x150.zip"
    if not source.is_file():
        sys.exit(f"The bench needs {source.relative_to(ROOT.parent)} beside this clone.")
    with zipfile.ZipFile(source) as whole:
        names = [name for name in whole.namelist() if not name.endswith("/")]
        if images >= len(names):
            return source
        part = folder / "part.zip"
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as out:
            for name in names[:images]:
                out.writestr(name, whole.read(name))
    return part


def _wait_until_ready(base: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{base}/health/ready", timeout=5).close()
            return
        if time.monotonic() > deadline:
            sys.exit("dermq was not ready within 60 s.")
        time.sleep(0.2)


def _program(process: psutil.Process) -> str | None:
    line = process.cmdline()
    if any("gunicorn" in word for word in line):
        return "web"
    if "spawn_main" in " ".join(line):
        parent = process.parent()
        return next((word for word in parent.cmdline() if word in ("classify", "intake")), None) if parent else None
    return None


def _print(whole: dict[str, Any], before: float, after: float, peaks: dict[str, int]) -> None:
    engine = (before + after) / 2
    trail: list[tuple[int, int]] = [point for point in whole["trail"] if point[1]]
    total = whole["counts"]["received"]
    settled = next((size for ended, size in trail if ended >= total // 5), 0)
    rows = [
        ("images received, done, failed", "{received}, {done}, {failed}".format(**whole["counts"])),
        ("rows of the CSV report", whole["rows"]),
        ("seconds, upload and whole", f"{whole['upload_seconds']:.1f}, {whole['seconds']:.1f}"),
        ("images/s end to end", f"{whole['rate']:.1f}"),
        ("images/s of the engine alone, before and after", f"{before:.1f}, {after:.1f}"),
        ("end to end / engine", f"{whole['rate'] / engine:.2f}"),
        ("web, peak MB", f"{peaks.get('web', 0) / _MB:.0f}"),
        ("classify worker MB, after a fifth and at the end", f"{settled / _MB:.0f}, {trail[-1][1] / _MB:.0f}"),
        ("intake worker, peak MB", f"{peaks.get('intake', 0) / _MB:.0f}"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
