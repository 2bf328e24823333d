"""Recognises files of formats that are not accepted, by their leading bytes, so that a lab is told what it sent."""

import re
from collections.abc import Callable

from dermq.formats.base_media import list_brands

Test = Callable[[bytes], bool]
_OFFICE = (b"word/", b"xl/", b"ppt/", b"[Content_Types].xml")
_TAR_AT = 257
_HEAD_OF_TEXT = 4096


def _match_start(*signatures: bytes) -> Test:
    return lambda head: head.startswith(signatures)


def _match_riff(kind: bytes) -> Test:
    return lambda head: head[:4] in (b"RIFF", b"RIFX") and head[8:12] == kind


def _match_brand(*brands: bytes) -> Test:
    return lambda head: head[8:12] in brands and head[4:8] == b"ftyp"


IMAGES: tuple[tuple[str, Test], ...] = (
    ("a GIF image", _match_start(b"GIF87a", b"GIF89a")),
    ("a JPEG XL image", _match_start(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    ("a JPEG XR image", _match_start(b"II\xbc")),
    ("a Photoshop document", _match_start(b"8BPS")),
    ("an icon", _match_start(b"\0\0\1\0", b"\0\0\2\0", b"icns")),
    ("a PNM image", lambda head: re.match(rb"P[1-7fF]\s[\s\d#]", head) is not None),
    ("an OpenEXR image", _match_start(b"\x76\x2f\x31\x01")),
    ("a Radiance HDR image", _match_start(b"#?RADIANCE", b"#?RGBE")),
    ("a QOI image", _match_start(b"qoif")),
    ("a GIMP image", _match_start(b"gimp xcf")),
    ("a DDS texture", _match_start(b"DDS ")),
    ("a FITS image", _match_start(b"SIMPLE  =")),
    ("a PCX image", lambda head: re.match(rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]", head) is not None),
    ("a DjVu document", _match_start(b"AT&TFORM")),
    ("a BPG image", _match_start(b"BPG\xfb")),
    (
        "an SVG drawing",
        lambda head: re.match(rb"\s*(<\?xml|<!--|<!DOCTYPE|<svg)", head) is not None and b"<svg" in head,
    ),
    ("camera raw data (Canon CR2)", lambda head: head[:4] == b"II*\0" and head[8:10] == b"CR"),
    ("camera raw data (Canon CR3)", _match_brand(b"crx ")),
    ("camera raw data (Canon CRW)", lambda head: head[6:14] == b"HEAPCCDR"),
    ("camera raw data (Fujifilm RAF)", _match_start(b"FUJIFILMCCD-RAW")),
    ("camera raw data (Olympus ORF)", _match_start(b"IIRO", b"IIRS", b"MMOR")),
    ("camera raw data (Panasonic RW2)", _match_start(b"IIU\0")),
    ("camera raw data (Sigma X3F)", _match_start(b"FOVb")),
    ("camera raw data (Minolta MRW)", _match_start(b"\0MRM")),
)
"""Image formats that are not accepted."""

NO_IMAGES: tuple[tuple[str, Test], ...] = (
    ("a PDF document", lambda head: b"%PDF-" in head[:1024]),
    ("a PostScript document", _match_start(b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("an office document", lambda head: head.startswith(b"PK\3\4") and any(part in head for part in _OFFICE)),
    ("an office document", _match_start(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")),
    ("an RTF document", _match_start(b"{\\rtf")),
    ("a ZIP archive", _match_start(b"PK\3\4", b"PK\5\6", b"PK00PK\3\4")),
    ("a 7z archive", _match_start(b"7z\xbc\xaf\x27\x1c")),
    ("a RAR archive", _match_start(b"Rar!\x1a\x07")),
    ("a compressed file", _match_start(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")),
    ("a TAR archive", lambda head: head[_TAR_AT : _TAR_AT + 5] == b"ustar"),
    ("a video", lambda head: bool(list_brands(head)) or head[4:8] in (b"moov", b"mdat", b"wide", b"free")),
    ("a video", _match_riff(b"AVI ")),
    ("a video", _match_start(b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"\x30\x26\xb2\x75", b"FLV\1")),
    ("a sound", _match_riff(b"WAVE")),
    ("a sound", _match_start(b"ID3", b"OggS", b"fLaC", b"#!AMR")),
    ("a program", _match_start(b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")),
    ("a database", _match_start(b"SQLite format 3\0")),
    ("an HDF5 file", _match_start(b"\x89HDF\r\n\x1a\n")),
    ("a NIfTI volume", lambda head: head[344:348] in (b"n+1\0", b"ni1\0")),
    ("the part of a file that macOS keeps beside it", _match_start(b"\0\5\x16\7", b"\0\5\x16\0")),
    ("a web page", lambda head: re.match(rb"\s*<(!doctype html|html)", head, re.I) is not None),
    ("XML", lambda head: re.match(rb"(\xef\xbb\xbf)?\s*<\?xml", head) is not None),
    ("JSON", lambda head: re.match(rb"\s*[{\[]\s*[\"{\[\]}\d]", head) is not None and _is_text(head)),
    ("text", lambda head: _is_text(head)),
)
"""Formats of files that are no images."""

_MANGLED: tuple[tuple[str, Test], ...] = (
    ("JPEG", lambda head: b"JFIF" in head[4:32] or b"Exif\0" in head[4:32]),
    ("PNG", lambda head: b"PNG" in head[:8] and b"IHDR" in head[:40]),
)
"""Images whose first bytes were changed, for example because a program took them for text."""


def describe(head: bytes) -> str:
    """Return what a file without an accepted format seems to be, as a clause: ``is a PDF document, not an image``."""
    if not head.strip(b"\0") or not head.strip(b"\xff"):
        return "has no value but one; the file was probably damaged on its way"
    for name, test in _MANGLED:
        if test(head):
            return (
                f"looks like a {name} image whose first bytes were changed on the way, for example by a text transfer"
            )
    for name, test in IMAGES:
        if test(head):
            return f"is {name}, which is of no accepted kind"
    for name, test in NO_IMAGES:
        if test(head):
            return f"is {name}, not an image"
    return "is of no kind of file that is known here"


def is_raw(head: bytes) -> bool:
    """Return whether a file is a camera's raw data although it begins as a TIFF does."""
    return head[:4] == b"II*\0" and head[8:10] == b"CR"


def _is_text(head: bytes) -> bool:
    """Return whether bytes are printable text in UTF-8, UTF-16 or a code page of Europe."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    sample = head[:_HEAD_OF_TEXT]
    odd = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in sample)
    return odd == 0 and sum(byte < 128 for byte in sample) >= 0.7 * len(sample)
