"""Decodes stored images: reads the file from the store, and stores the thumbnail that a decoder made."""

import uuid

from dermq import errors
from dermq.queue.claims import ClaimedImage
from dermq.settings import Settings
from dermq.storage import BlobStore
from worker.decoders.frames import Request
from worker.decoders.pictures import Picture, View
from worker.decoders.pool import Job


def make_job(image: ClaimedImage, view: View, blobs: BlobStore, settings: Settings) -> Job:
    """Return what a pool needs to decode a claimed image."""

    def keep(picture: Picture) -> None:
        blobs.put_thumbnail(image.batch_id, image.sha256, picture.thumbnail)

    request = Request(
        view.size,
        view.recipe_version,
        draft=settings.jpeg_draft,
        max_pixels=settings.max_image_pixels,
        max_side=settings.max_image_side,
    )
    return Job(image.lab_id, request, lambda: _read(blobs, image.batch_id, image.sha256), keep)


def _read(blobs: BlobStore, batch_id: uuid.UUID, sha256: str) -> bytes:
    """Read a blob. When it cannot be read, the store tells whether it or the one file is to blame."""
    try:
        with blobs.open(batch_id, sha256) as file:
            return file.read()
    except (OSError, errors.Transient) as err:
        blobs.probe()
        raise errors.Permanent(
            "blob_unreadable", f"The stored file of this image is missing or cannot be read: {err}"
        ) from err
