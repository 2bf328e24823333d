"""Decodes claimed images in threads while the engine predicts what was claimed before."""

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dermq import errors, imaging
from dermq.queue.claims import ClaimedImage
from dermq.settings import Settings
from dermq.storage import BlobStore

Pixels = NDArray[np.uint8]


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

    def start(self, image: ClaimedImage, size: int) -> Future[Pixels]:
        """Begin to decode; the future gives ``(size, size, 3) uint8``, or raises Permanent, Transient, MemoryError."""
        return self._threads.submit(self._decode, image, size)

    def _decode(self, image: ClaimedImage, size: int) -> Pixels:
        data = self._read(image.batch_id, image.sha256)
        upright = imaging.decode(data, max_pixels=self._max_pixels, draft_size=size if self._draft else None)
        self._blobs.put_thumbnail(image.batch_id, image.sha256, imaging.thumbnail(upright))
        return imaging.squash(upright, size)

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
