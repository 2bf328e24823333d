"""The variables of every template, also that of an error page."""

import contextlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

import dermq
from dermq import errors, formats, taxonomy, zips
from dermq.principals import LabPrincipal
from dermq.settings import Settings
from web import services
from web.access import auth


@dataclass(frozen=True)
class Limits:
    """The limits that the upload area names."""

    images: int
    image_bytes: int
    archive_bytes: int
    formats: str = formats.list_names()

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(settings.max_images_per_batch, settings.max_image_bytes, settings.max_archive_bytes)


def build_context() -> dict[str, Any]:
    """Return the variables that every template may use."""
    return {
        "visitor": _find_visitor(),
        "notice": taxonomy.NOTICE,
        "version": dermq.__version__,
        "diagnoses": taxonomy.DIAGNOSES,
        "encodings": zips.ENCODINGS,
        "limits": Limits.of(services.get_current().settings),
    }


def _find_visitor() -> LabPrincipal | None:
    """Return who is signed in, or None. An error page must be shown even if the database cannot tell."""
    with contextlib.suppress(errors.DermqError, SQLAlchemyError):
        return auth.get_principal()
    return None
