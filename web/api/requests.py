"""The schemas of requests to the API. They reject values that are not allowed, and give the reason."""

import json
from typing import Annotated, Any

from flask import request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from dermq import arrivals, errors, models, taxonomy, zips
from dermq.lifecycle import ImageState

DICTIONARY_BYTES = 16_384
"""Most bytes of a batch's options or metadata, as JSON."""
_KEY_LENGTH = models.NAME_LENGTH


def _check_printable(text: str) -> str:
    if text != arrivals.escape_controls(text):
        raise ValueError("holds control characters; printable characters are accepted")
    return text


def _check_small(dictionary: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(dictionary, allow_nan=False))
    if size > DICTIONARY_BYTES:
        raise ValueError(f"has {size:,} bytes as JSON; at most {DICTIONARY_BYTES:,} are accepted")
    return dictionary


Dictionary = Annotated[dict[str, Any], AfterValidator(_check_small)]
Printable = AfterValidator(_check_printable)
DiagnosisCode = Annotated[
    str, Field(pattern=f"^({'|'.join(taxonomy.CODES)})$", json_schema_extra={"enum": list(taxonomy.CODES)})
]


class Body(BaseModel):
    """The base class of JSON bodies: no other fields, and no value of another type, such as "yes" for true."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NewBatch(Body):
    """A batch to create."""

    model_config = ConfigDict(
        str_strip_whitespace=True,
        json_schema_extra={"examples": [{"name": "clinic-2026-11", "metadata": {"study": "D-17"}}]},
    )

    name: Annotated[str, Field(min_length=1, max_length=models.NAME_LENGTH), Printable]
    urgent: bool = Field(False, description="Classify before the lab's other batches, in at most three turns of four.")
    options: Dictionary = Field(default_factory=dict, description="Options, stored with the batch.")
    metadata: Dictionary = Field(
        default_factory=dict, description="The lab's own notes, stored with the batch and never interpreted."
    )


class NewBatchForm(NewBatch):
    """The fields of a multipart request that creates a batch with files. All fields of a form are texts."""

    model_config = ConfigDict(strict=False)

    seal: bool = Field(False, description="Whether to finish the upload: the batch then takes no more files.")


class Paging(BaseModel):
    """Which page of a list to return."""

    limit: int = Field(100, ge=1, le=500, description="Most rows on a page.")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the page before.")


class ImageFilter(Paging):
    """Which images of a batch to return."""

    state: ImageState | None = None
    diagnosis: DiagnosisCode | None = None
    name: Annotated[str, Field(max_length=models.NAME_LENGTH), Printable] | None = Field(
        None, description="Part of the name; upper and lower case are the same."
    )


class ImageName(BaseModel):
    """The name of an uploaded image."""

    name: str = Field(
        description="A relative path of 1 to 255 characters, percent-encoded, unique in its batch.",
        examples=["visit-2/ISIC_0024306.jpg"],
    )


class ArchiveNames(BaseModel):
    """How the names in an uploaded archive are to be read."""

    encoding: Annotated[str, Field(json_schema_extra={"enum": list(zips.ENCODINGS)})] | None = Field(
        None,
        description="The encoding of names that are not in Unicode. Without it, the encoding is found from all names.",
    )

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        if encoding is not None and encoding not in zips.ENCODINGS:
            raise ValueError(f"is not known; {', '.join(zips.ENCODINGS)} are accepted")
        return encoding


def read_idempotency_key() -> str | None:
    """Return the request's Idempotency-Key or None. Raises Rejected when it is empty, too long or not printable."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (1 <= len(key) <= _KEY_LENGTH and key.isascii() and key.isprintable()):
        raise errors.Rejected(
            "bad_idempotency_key",
            f"The Idempotency-Key is not valid; it must have 1 to {_KEY_LENGTH} printable ASCII characters.",
        )
    return key
