"""The extensions of file names. The content decides what a file is; a name that contradicts it gets a note."""

from pathlib import PurePosixPath

from dermq.formats.image_format import ImageFormat
from dermq.notes import Note

BY_FORMAT: dict[str, frozenset[str]] = {
    "JPEG": frozenset({"jpg", "jpeg", "jpe", "jfif", "mpo"}),
    "PNG": frozenset({"png", "apng"}),
    "TIFF": frozenset({"tif", "tiff", "btf"}),
    "WebP": frozenset({"webp"}),
    "BMP": frozenset({"bmp", "dib"}),
    "HEIC": frozenset({"heic", "heif", "hif"}),
    "AVIF": frozenset({"avif"}),
    "JPEG 2000": frozenset({"jp2", "j2k", "jpf", "jpx", "j2c", "jpc"}),
    "DICOM": frozenset({"dcm", "dicom", "dic"}),
}
_OTHERS = frozenset({"gif", "pdf", "svg", "txt", "zip", "psd", "cr2", "nef", "arw", "dng", "mp4", "mov", "jxl"})
_KNOWN = frozenset().union(*BY_FORMAT.values(), _OTHERS)


def note_contradiction(name: str, found: ImageFormat) -> tuple[Note, ...]:
    """Return a note when the extension of a name belongs to another kind of file. Unknown extensions are ignored."""
    extension = PurePosixPath(name).suffix[1:].lower()
    if extension not in _KNOWN or extension in BY_FORMAT[found.name]:
        return ()
    return (Note("other_extension", f"The name ends in .{extension}, but the content is {found.name}."),)
