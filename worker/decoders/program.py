"""A decoder: ``python -m worker.decoders.program MEMORY_BYTES SECONDS``, started and killed by ``pool``.

It reads files from standard input and answers on standard output, one after the other, until its input ends. It knows
no setting, no secret and no name of a file. Keep its imports small: a worker waits for them after every loss.
"""

import codecs
import contextlib
import importlib
import importlib.abc
import io
import json
import math
import signal
import sys
from typing import BinaryIO

import imagecodecs
import tifffile
from PIL import Image

from dermq import decoding, errors, imaging
from dermq import notes as image_notes
from worker.decoders import confinement, structure
from worker.decoders.frames import MOST_TEXT_BYTES, READY, Answer, Kind, Request

_SMALL = Request(8, 1, draft=True, max_pixels=64, max_side=8)
_TEXTS = ("ascii", "latin-1", "cp1252", "utf-8", "utf-16", "utf-16-le", "utf-16-be")
"""Encodings in which libraries read a file's texts; Python imports each when it is first used."""
_GRACE_SECONDS = 5
"""After its time limit and this, a decoder whose worker did not kill it ends itself."""


def main() -> None:
    """Give up all rights, then answer requests until there are no more."""
    memory_bytes, seconds = int(sys.argv[1]), math.ceil(float(sys.argv[2]))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    warm_up()
    confinement.give_up_rights(memory_bytes)
    answers.write(READY)
    answers.flush()
    while header := requests.read(Request.LAYOUT.size):
        file_bytes, request = Request.unpack(header)
        signal.alarm(seconds + _GRACE_SECONDS)
        answer(requests.read(file_bytes), request, answers)
        answers.flush()
        signal.alarm(0)


def warm_up() -> None:
    """Import everything that decoding imports late, because nothing can be imported later."""
    for name in decoding.MODULES.values():
        importlib.import_module(f"dermq.decoding.{name}")
    for codec in decoding.CODECS:
        getattr(imagecodecs, codec)
    for encoding in _TEXTS:
        codecs.lookup(encoding)
    for scheme in tifffile.COMPRESSION:
        with contextlib.suppress(KeyError, ImportError):  # a compression that tifffile knows by name alone
            tifffile.TIFF.DECOMPRESSORS[scheme]
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000"):
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, name, exif=exif)
        answer(out.getvalue(), _SMALL, io.BytesIO())
    answer(b"\xff\xd8\xff", _SMALL, io.BytesIO())
    sys.meta_path.insert(0, LATE)


class LateImports(importlib.abc.MetaPathFinder):
    """Records modules that are imported too late, so that a failed import is not reported as a damaged file."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Note the name. The other finders cannot open a file, so the import fails."""
        self.names.append(name)


LATE = LateImports()


def answer(data: bytes, request: Request, out: BinaryIO) -> None:
    """Decode a file and write the answer, also when decoding raises any error."""
    LATE.names.clear()
    try:
        decode(data, request, out)
    except errors.Permanent as err:
        if LATE.names:
            _tell(out, Kind.FAILED, f"the decoder lacks {', '.join(LATE.names)}")
            return
        _tell(out, Kind.REFUSED, json.dumps([err.code, err.detail[:1000]]))
    except MemoryError:
        _tell(out, Kind.OUT_OF_MEMORY)
    except Exception as err:  # the process's edge: its worker decides what is done about an error
        _tell(out, Kind.FAILED, f"{type(err).__name__}: {err}"[:1000])


def decode(data: bytes, request: Request, out: BinaryIO) -> None:
    """Decode a file and write its pixels. Raises Permanent, MemoryError, or anything that decoding raises."""
    structure.check(data, max_pixels=request.max_pixels, max_side=request.max_side)
    found = imaging.read(
        data,
        max_pixels=request.max_pixels,
        draft_size=request.size if request.draft else None,
        recipe_version=request.recipe_version,
    )
    pixels = imaging.squash(found.image, request.size).data.cast("B")
    thumbnail = imaging.make_thumbnail(found.image)
    notes = json.dumps(image_notes.as_json(found.notes)).encode()
    header = Answer(Kind.DECODED, *found.size, len(notes), pixels.nbytes, len(thumbnail))
    for part in (header.pack(), notes, pixels, thumbnail):
        out.write(part)


def _tell(out: BinaryIO, kind: Kind, text: str = "") -> None:
    told = text.encode(errors="replace")[:MOST_TEXT_BYTES]
    out.write(Answer(kind, text_bytes=len(told)).pack() + told)


if __name__ == "__main__":
    main()
