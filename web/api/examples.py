"""Examples of answers for the OpenAPI document. A test validates each against its schema."""

from typing import Any

from dermq import formats
from web.reports import registry

_BATCH = "/api/v1/batches/01a209b6-fbf4-7740-aee4-256a76833bda"
_ARCHIVE_ID = "01a209b7-0030-7d52-8f1c-3b1c5d1c7a55"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

BATCH: dict[str, Any] = {
    "id": "01a209b6-fbf4-7740-aee4-256a76833bda",
    "name": "clinic-2026-11",
    "state": "running",
    "counts": {
        "received": 5000,
        "queued": 3100,
        "running": 128,
        "done": 1769,
        "failed": 3,
        "cancelled": 0,
        "refused": 10,
        "archives_open": 0,
    },
    "images_per_second": 48.2,
    "eta_seconds": {"low": 61, "high": 75},
    "bundle": {"name": "ham10000-b1", "version": "1", "sha256": _SHA256},
    "urgent": False,
    "options": {},
    "metadata": {"study": "D-17"},
    "created_at": "2026-11-23T18:00:00.000000Z",
    "sealed_at": "2026-11-23T18:01:30.000000Z",
    "cancelled_at": None,
    "finished_at": None,
    "links": {
        "self": _BATCH,
        "images": f"{_BATCH}/images",
        "refusals": f"{_BATCH}/refusals",
        "archives": f"{_BATCH}/archives",
        "archive": f"{_BATCH}/archive",
        "seal": f"{_BATCH}/seal",
        "cancel": f"{_BATCH}/cancel",
        "retry": f"{_BATCH}/retry",
        **{report_format.key: f"{_BATCH}/report.{report_format.ending}" for report_format in registry.FORMATS},
    },
}
REFUSAL: dict[str, Any] = {
    "name": "notes.txt",
    "code": "unsupported_format",
    "detail": formats.make_unsupported(b"Notes of the visit").detail,
    "archive_id": None,
    "created_at": "2026-11-23T18:00:01.000000Z",
}
ARCHIVE: dict[str, Any] = {
    "id": _ARCHIVE_ID,
    "state": "unpacking",
    "sha256": _SHA256,
    "bytes": 40435335,
    "encoding": None,
    "entries": 2500,
    "received": 2488,
    "unchanged": 0,
    "refused": 10,
    "skipped": 2,
    "skipped_names": ["images/", "__MACOSX/._ISIC_0024306.jpg"],
    "waiting": None,
    "error": None,
    "created_at": "2026-11-23T18:00:00.000000Z",
    "links": {"self": f"{_BATCH}/archives/{_ARCHIVE_ID}", "batch": _BATCH},
}
_FILE: dict[str, Any] = {
    "position": 1,
    "name": "visit-2/ISIC_0024306.jpg",
    "sha256": _SHA256,
    "bytes": 284_117,
    "links": {"self": f"{_BATCH}/images/1", "thumbnail": f"{_BATCH}/images/1/thumbnail", "batch": _BATCH},
}
RECEIVED_IMAGE: dict[str, Any] = {**_FILE, "unchanged": False}
IMAGE: dict[str, Any] = {
    **_FILE,
    "width": 600,
    "height": 450,
    "state": "done",
    "prediction": {
        "diagnosis": "nv",
        "probabilities": {
            "akiec": 0.01,
            "bcc": 0.02,
            "bkl": 0.03,
            "df": 0.04,
            "mel": 0.2,
            "nv": 0.65,
            "vasc": 0.05,
        },
        "confidence": 0.65,
        "entropy": 1.132,
        "ood_score": -3.25,
        "out_of_distribution": False,
        "engine": "onnx",
        "predicted_at": "2026-11-23T18:00:02.000000Z",
    },
    "error": None,
    "notes": [{"code": "extra_bytes", "detail": "2,048 bytes follow the end of the image; they were left out."}],
}
