"""Downloads made from a batch."""

import uuid
from collections.abc import Callable, Iterator

from flask import Response

from web import services
from web.access import auth
from web.api import documents
from web.api.blueprint import blueprint
from web.reports import formats

part = blueprint("reports", "Downloads made from a batch, for research only.")
CSV = "text/csv"
JSONL = "application/jsonl"


def _documented(mimetype: str, example: str) -> dict[int, object]:
    text = documents.content(mimetype, {"type": "string"}, "The report, streamed.")
    text["content"][mimetype]["example"] = example
    text["headers"] = {
        "Content-Disposition": {
            "description": "The file name; it carries `-partial` while the batch has not finished.",
            "schema": {"type": "string"},
        }
    }
    return documents.responses(404, also={200: text})


@part.get("/batches/<uuid:batch_id>/report.csv")
@part.doc(responses=_documented(CSV, ",".join(formats.COLUMNS)))
def report_csv(batch_id: uuid.UUID) -> Response:
    """Download a CSV with a row for every image.

    Names that a spreadsheet would take for a formula have an apostrophe before them.
    """
    return _report(batch_id, formats.as_csv, CSV, "csv")


@part.get("/batches/<uuid:batch_id>/report.jsonl")
@part.doc(responses=_documented(JSONL, '{"position": 1, "file_name": "ISIC_0024306.jpg", "state": "done"}'))
def report_jsonl(batch_id: uuid.UUID) -> Response:
    """Download a JSON object a line for every image, with the columns of the CSV."""
    return _report(batch_id, formats.as_jsonl, JSONL, "jsonl")


@part.get("/batches/<uuid:batch_id>/report.isic.csv")
@part.doc(responses=_documented(CSV, ",".join(formats.ISIC_COLUMNS)))
def report_isic_csv(batch_id: uuid.UUID) -> Response:
    """Download the images that are done in the submission format of ISIC 2018 Task 3."""
    return _report(batch_id, formats.as_isic_csv, CSV, "isic.csv")


def _report(
    batch_id: uuid.UUID, write: Callable[[formats.Source], Iterator[str]], mimetype: str, ending: str
) -> Response:
    source = formats.Source(services.current().sessions, auth.current_lab().id, batch_id)
    name = formats.file_name(source.batch(), ending)
    response = Response(write(source), content_type=f"{mimetype}; charset=utf-8")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response
