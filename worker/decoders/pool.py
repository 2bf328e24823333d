"""Decodes claimed images in threads while the engine predicts what was claimed before."""

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dermq import errors, imaging
from dermq.formats import Size
from dermq.notes import Note
from dermq.queue.claims import ClaimedImage
from dermq.settings import Settings
from dermq.storage import BlobStore

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """What a bundle sees of an image."""

    size: int
    """The side of its square, in pixels."""
    recipe_version: int


@dataclass(frozen=True)
class Picture:
    """A decoded image."""

    pixels: Pixels
    """``(size, size, 3) uint8`` RGB."""
    size: Size
    """Width and height as the file stores them."""
    notes: tuple[Note, ...]
    """What its lab should know of the file."""


class Decoder:
    """A few threads from blobs to pixels and thumbnails."""

    def __init__(self, blobs: BlobStore, settings: Settings) -> None:
        self._blobs = blobs
        self._max_pixels = settings.max_image_pixels
        self._draft = settings.jpeg_draft
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)

    def start(self, image: ClaimedImage, view: View) -> Future[Picture]:
        """Begin to decode; the future gives what ``view`` says, or raises Permanent, Transient, MemoryError."""
        return self._threads.submit(self._decode, image, view)

    def _decode(self, image: ClaimedImage, view: View) -> Picture:
        data = self._read(image.batch_id, image.sha256)
        decoded = imaging.read(
            data,
            max_pixels=self._max_pixels,
            draft_size=view.size if self._draft else None,
            recipe_version=view.recipe_version,
        )
        self._blobs.put_thumbnail(image.batch_id, image.sha256, imaging.make_thumbnail(decoded.image))
        return Picture(imaging.squash(decoded.image, view.size), decoded.size, decoded.notes)

    def _read(self, batch_id: uuid.UUID, sha256: str) -> bytes:
        """Read a blob. When it cannot be read, the store tells whether it or the one file is to blame."""
        try:
            with self._blobs.open(batch_id, sha256) as file:
                return file.read()
        except (OSError, errors.Transient) as err:
            self._blobs.probe()
            raise errors.Permanent(
                "blob_unreadable", f"The stored file of this image is missing or cannot be read: {err}"
            ) from err
