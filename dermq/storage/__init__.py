"""The blob store, which keeps the bytes of images and archives."""

from dermq import errors
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.storage.protocol import THUMBNAIL, BlobStore, Incoming

__all__ = ["RESERVE_BYTES", "THUMBNAIL", "BlobStore", "Incoming", "build", "check_room"]

RESERVE_BYTES = 16_000_000
"""Space that unpacking leaves free, for the database and for uploads on the same disk."""


def build(settings: Settings) -> BlobStore:
    """Build the store that the settings name: a folder on this machine."""
    return LocalStore(settings.blobs)


def check_room(blobs: BlobStore, wanted_bytes: int) -> None:
    """Raise OutOfSpace unless ``wanted_bytes`` can be written with ``RESERVE_BYTES`` left free."""
    free = blobs.measure_free_bytes()
    if free is not None and free < wanted_bytes + RESERVE_BYTES:
        raise errors.OutOfSpace(
            "storage_full",
            f"The storage has {free / 1e6:,.0f} MB left, too little for the next image. Nothing is lost; the work goes "
            "on by itself when there is more space.",
        )
