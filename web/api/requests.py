"""What the API is asked, as schemas that refuse what is not allowed and say why."""

import json
from typing import Annotated, Any

from flask import request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dermq import arrivals, errors, models, taxonomy
from dermq.lifecycle import ImageState

DICTIONARY_BYTES = 16_384
"""Most bytes of a batch's options or metadata, as JSON."""
_KEY_LENGTH = models.NAME_LENGTH


def _printable(text: str) -> str:
    if text != arrivals.printable(text):
        raise ValueError("holds control characters; printable characters are accepted")
    return text


def _small(dictionary: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(dictionary, allow_nan=False))
    if size > DICTIONARY_BYTES:
        raise ValueError(f"has {size:,} bytes as JSON; at most {DICTIONARY_BYTES:,} are accepted")
    return dictionary


Dictionary = Annotated[dict[str, Any], AfterValidator(_small)]
Printable = AfterValidator(_printable)
DiagnosisCode = Annotated[
    str, Field(pattern=f"^({'|'.join(taxonomy.CODES)})$", json_schema_extra={"enum": list(taxonomy.CODES)})
]


class NewBatch(BaseModel):
    """A batch to create."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        str_strip_whitespace=True,
        json_schema_extra={"examples": [{"name": "clinic-2026-11", "metadata": {"study": "D-17"}}]},
    )

    name: Annotated[str, Field(min_length=1, max_length=models.NAME_LENGTH), Printable]
    urgent: bool = Field(False, description="Before the lab's other batches, in at most three turns of four.")
    options: Dictionary = Field(default_factory=dict, description="Kept with the batch.")
    metadata: Dictionary = Field(default_factory=dict, description="What the lab wants to find again; never read.")


class NewBatchForm(NewBatch):
    """The fields of a multipart request that creates a batch with files."""

    seal: bool = Field(False, description="Whether the files of this request are all there will be.")


class Paging(BaseModel):
    """Which page of a list."""

    limit: int = Field(100, ge=1, le=500, description="Most rows on a page.")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the page before.")


class ImageFilter(Paging):
    """Which images of a batch."""

    state: ImageState | None = None
    diagnosis: DiagnosisCode | None = None
    name: Annotated[str, Field(max_length=models.NAME_LENGTH), Printable] | None = Field(
        None, description="Part of the name, in any case."
    )


class ImageName(BaseModel):
    """What an uploaded image is called."""

    name: str = Field(
        description="A relative path of 1 to 255 characters, percent-encoded, unique in its batch.",
        examples=["visit-2/ISIC_0024306.jpg"],
    )


def idempotency_key() -> str | None:
    """The request's Idempotency-Key. Raises Rejected when it is empty, too long or not printable ASCII."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (1 <= len(key) <= _KEY_LENGTH and key.isascii() and key.isprintable()):
        raise errors.Rejected(
            "bad_idempotency_key", f"An Idempotency-Key has 1 to {_KEY_LENGTH} printable ASCII characters."
        )
    return key
