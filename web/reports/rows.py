"""The columns of reports that have a row for every image."""

from typing import Any

from dermq import notes, taxonomy
from dermq.models import Batch
from web import listing

_PREDICTED = ("diagnosis", "confidence", "entropy", "ood_score", *(f"p_{code}" for code in taxonomy.CODES))
COLUMNS = ("position", "file_name", "state", *_PREDICTED, "error_code", "error_detail", "bundle", "notice", "notes")


def make_row(batch: Batch, row: listing.Classified) -> dict[str, Any]:
    """Return the values of an image by column. Numbers are not formatted, and unknown values are None."""
    image, prediction = row
    return {
        "position": image.position,
        "file_name": image.name,
        "state": image.state.value,
        **{column: None if prediction is None else getattr(prediction, column) for column in _PREDICTED},
        "error_code": image.error_code,
        "error_detail": image.error_detail,
        "bundle": f"{batch.bundle.name} {batch.bundle.version}",
        "notice": taxonomy.NOTICE,
        "notes": " ".join(note.detail for note in notes.from_json(image.notes)) or None,
    }
