"""The calls that download reports, one for each format in ``web.reports.registry``."""

import uuid

from flask import Response

from dermq.principals import Scope
from web import services
from web.access import auth
from web.api import blueprints, documents
from web.reports import registry
from web.reports.report_format import ReportFormat
from web.reports.source import Source

blueprint = blueprints.make("reports", "Downloads made from a batch, for research only.")
_DISPOSITION = {
    "description": "The file name. It ends in `-partial` as long as the batch has not finished.",
    "schema": {"type": "string"},
}


def _add_call(report_format: ReportFormat) -> None:
    """Add the call that downloads reports in this format."""

    def download(batch_id: uuid.UUID) -> Response:
        return _respond(batch_id, report_format)

    download.__name__ = report_format.key
    download.__doc__ = report_format.description
    documented = blueprint.doc(responses=documents.describe_responses(404, also={200: _describe(report_format)}))
    blueprint.get(f"/batches/<uuid:batch_id>/report.{report_format.ending}")(
        documented(auth.require(Scope.READ)(download))
    )


def _describe(report_format: ReportFormat) -> dict[str, object]:
    response = documents.describe_content(report_format.media_type, {"type": "string"}, "The report, streamed.")
    response["content"][report_format.media_type]["example"] = report_format.example
    response["headers"] = {"Content-Disposition": _DISPOSITION}
    return response


def _respond(batch_id: uuid.UUID, report_format: ReportFormat) -> Response:
    source = Source(services.get_current().sessions, auth.get_principal().lab_id, batch_id)
    name = report_format.file_name(source.read_batch())
    response = Response(report_format.write(source), content_type=f"{report_format.media_type}; charset=utf-8")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response


for _report_format in registry.FORMATS:
    _add_call(_report_format)
