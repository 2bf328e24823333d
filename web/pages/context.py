"""What every template may use, the page of an error included."""

import contextlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

import dermq
from dermq import errors, imaging, taxonomy
from dermq.principals import LabPrincipal
from dermq.settings import Settings
from web import services
from web.access import auth


@dataclass(frozen=True)
class Limits:
    """What a drop zone says that it takes."""

    images: int
    image_bytes: int
    archive_bytes: int
    formats: str = imaging.FORMATS_TEXT

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(settings.max_images_per_batch, settings.max_image_bytes, settings.max_archive_bytes)


def everywhere() -> dict[str, Any]:
    """Return the names that every template knows."""
    return {
        "visitor": _visitor(),
        "notice": taxonomy.NOTICE,
        "version": dermq.__version__,
        "diagnoses": taxonomy.DIAGNOSES,
        "limits": Limits.of(services.current().settings),
    }


def _visitor() -> LabPrincipal | None:
    """Who is signed in; the page of an error must come even where nobody can find that out."""
    with contextlib.suppress(errors.DermqError, SQLAlchemyError):
        return auth.principal()
    return None
