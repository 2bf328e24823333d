"""An image as a row: the columns that every report of the whole batch has."""

from typing import Any

from dermq import taxonomy
from dermq.models import Batch
from web import listing

_PREDICTED = ("diagnosis", "confidence", "entropy", "ood_score", *(f"p_{code}" for code in taxonomy.CODES))
COLUMNS = ("position", "file_name", "state", *_PREDICTED, "error_code", "error_detail", "bundle", "notice")


def by_column(batch: Batch, row: listing.Classified) -> dict[str, Any]:
    """Return one image by column. Numbers are numbers, and what is unknown is None."""
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
    }
