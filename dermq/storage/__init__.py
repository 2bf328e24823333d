"""The blob store, which keeps the bytes of images and archives."""

from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.storage.protocol import THUMBNAIL, BlobStore, Incoming

__all__ = ["THUMBNAIL", "BlobStore", "Incoming", "build"]


def build(settings: Settings) -> BlobStore:
    """Build the store that the settings name: a folder on this machine."""
    return LocalStore(settings.blobs)
