"""A multipart request with files: its fields, the files that are received, and those that are refused."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pydantic_core
from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from dermq import arrivals, errors
from dermq.arrivals import Arrival
from web import services
from web.api.requests import NewBatchForm
from web.errors import Invalid
from web.http import bodies, multipart

_IN_JSON = ("options", "metadata")


@dataclass
class Form:
    """The parts of a multipart request. Its files are on disk, and are deleted when the request ends unless kept."""

    fields: dict[str, Any] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    refused: list[tuple[str, errors.Rejected]] = field(default_factory=list)

    @property
    def files(self) -> int:
        return len(self.arrivals) + len(self.refused)

    def batch(self) -> NewBatchForm:
        """Return the batch that the fields describe. Raises Invalid."""
        try:
            return NewBatchForm.model_validate(self.fields)
        except pydantic.ValidationError as err:
            raise Invalid.of(err, "form") from err

    def fingerprint(self) -> str:
        """Return the SHA-256 of the whole request: fields, files and refusals."""
        files = [(arrival.name, arrival.file.sha256) for arrival in self.arrivals]
        refused = [(name, error.code) for name, error in self.refused]
        return compute_fingerprint({"fields": self.fields, "files": files, "refused": refused})


def compute_fingerprint(said: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``said``, to compare two requests with the same key."""
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def receive(stack: contextlib.ExitStack) -> Form:
    """Read the request's body; ``stack`` deletes those of its files that are not kept.

    Raises BadRequest for a malformed body, RequestEntityTooLarge for one over the limit of an archive, TooLarge for
    too many files or a field that is too long, and OutOfSpace.
    """
    boundary = request.mimetype_params.get("boundary")
    if not boundary:
        raise BadRequest("The Content-Type names no boundary.")
    form = Form()
    for part in multipart.read_parts(_limit_bytes(bodies.read_chunks()), boundary):
        if isinstance(part, multipart.FormField):
            _take_field(form, part)
        else:
            _take_file(form, part, stack)
    return form


def _take_field(form: Form, part: multipart.FormField) -> None:
    known = NewBatchForm.model_fields
    if part.name not in known:
        allowed = ", ".join(known)
        raise Invalid(
            [{"where": f"form.{part.name}", "detail": f"There is no such field; {allowed} and files are accepted"}]
        )
    if part.name in form.fields:
        raise errors.Rejected("bad_field", f"The field {part.name!r} is given twice; once is accepted.")
    value: Any = part.value
    if part.name in _IN_JSON:
        try:
            value = pydantic_core.from_json(part.value, allow_inf_nan=False)
        except ValueError as err:
            raise errors.Rejected("bad_field", f"The field {part.name!r} must be JSON.") from err
    form.fields[part.name] = value


def _take_file(form: Form, part: multipart.FormFile, stack: contextlib.ExitStack) -> None:
    here = services.get_current()
    if not part.filename and not any(part.content):
        return  # browsers send this for a file field that was left empty
    if form.files == here.settings.max_files_per_request:
        raise errors.TooLarge(
            "too_many_files",
            f"The request has more than {form.files:,} files, the most that is accepted; "
            "send larger sets as an archive or one by one.",
        )
    try:
        taking = arrivals.receive_file(here.blobs, part.filename, part.content, here.settings)
        form.arrivals.append(stack.enter_context(taking))
    except errors.Rejected as err:
        form.refused.append((part.filename, err))


def _limit_bytes(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``chunks``. Raises RequestEntityTooLarge for more bytes than an archive may have."""
    most = services.get_current().settings.max_archive_bytes
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if max(received, request.content_length or 0) > most:
            raise RequestEntityTooLarge(f"The request has more than {most:,} bytes, the most that is accepted.")
        yield chunk
