"""A multipart request with files: its fields, the files that can be received and the ones that are refused."""

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
    """What a multipart request brought. The files are on disk, closed, and gone when the request ends."""

    fields: dict[str, Any] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    refused: list[tuple[str, errors.Rejected]] = field(default_factory=list)

    @property
    def files(self) -> int:
        return len(self.arrivals) + len(self.refused)

    def batch(self) -> NewBatchForm:
        """The batch that the fields describe. Raises Invalid."""
        try:
            return NewBatchForm.model_validate(self.fields)
        except pydantic.ValidationError as err:
            raise Invalid.of(err, "form") from err

    def fingerprint(self) -> str:
        """SHA-256 of everything that the request said."""
        files = [(arrival.name, arrival.file.sha256) for arrival in self.arrivals]
        refused = [(name, error.code) for name, error in self.refused]
        return fingerprint({"fields": self.fields, "files": files, "refused": refused})


def fingerprint(said: Any) -> str:
    """SHA-256 of the canonical JSON of ``said``."""
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def receive(stack: contextlib.ExitStack) -> Form:
    """Read the request's body; ``stack`` removes the files that were not put.

    Raises BadRequest for a malformed body, RequestEntityTooLarge for one over the limit of an archive, TooLarge for
    too many files, and OutOfSpace.
    """
    boundary = request.mimetype_params.get("boundary")
    if not boundary:
        raise BadRequest("The Content-Type names no boundary.")
    form = Form()
    for part in multipart.parts(_limited(bodies.chunks()), boundary):
        if isinstance(part, multipart.FormField):
            _take_field(form, part)
        else:
            _take_file(form, part, stack)
    return form


def _take_field(form: Form, part: multipart.FormField) -> None:
    known = NewBatchForm.model_fields
    if part.name not in known:
        allowed = ", ".join(known)
        raise Invalid([{"where": f"form.{part.name}", "detail": f"There is no such field; {allowed} and files are"}])
    if part.name in form.fields:
        raise errors.Rejected("bad_field", f"The field {part.name!r} is given twice.")
    value: Any = part.value
    if part.name in _IN_JSON:
        try:
            value = pydantic_core.from_json(part.value, allow_inf_nan=False)
        except ValueError as err:
            raise errors.Rejected("bad_field", f"The field {part.name!r} is not JSON.") from err
    form.fields[part.name] = value


def _take_file(form: Form, part: multipart.FormFile, stack: contextlib.ExitStack) -> None:
    here = services.current()
    if not part.filename and not any(part.content):
        return  # what a browser sends for a file field that was left empty
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


def _limited(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, but no more than an archive may have."""
    most = services.current().settings.max_archive_bytes
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if max(received, request.content_length or 0) > most:
            raise RequestEntityTooLarge(f"The request has more than {most:,} bytes, the most that is accepted.")
        yield chunk
