"""The names of entries: from bytes in one of many encodings to relative paths with forward slashes.

Programs write names in UTF-8, marked as such or not, in a code page of their machine, or in both ways. A name is
decoded as a whole before it is split at separators: in some encodings the byte of a backslash may be a part of a
character.
"""

import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable

import charset_normalizer

from dermq import arrivals, zips

_UTF8_NAME = 0x800
"""Bit of the flags: name and comment are in UTF-8 (APPNOTE 4.4.4)."""
_UNICODE_PATH = 0x7075
"""The extra field of Info-ZIP with the name in UTF-8 (APPNOTE 4.6.9)."""
_DEFAULT_ENCODING = "cp437"
"""The encoding of the first ZIP program, which APPNOTE names."""
_SAMPLE_BYTES = 16_384
"""So many bytes of names are looked at to find their encoding."""
_MOST_MESS = 0.2
"""When names score above this mess ratio of charset-normalizer in every encoding, the default one is used."""

_HERE = re.compile(r"(?:\./+)+")
_ALPHABETS = (("CYRILLIC",), ("GREEK",))
"""What East Asian encodings have beside their own scripts."""
_SCRIPTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "cp932": (("CJK", "HIRAGANA", "KATAKANA"), *_ALPHABETS),
    **dict.fromkeys(("gb18030", "big5"), (("CJK",), *_ALPHABETS)),
    "cp949": (("HANGUL",), *_ALPHABETS),
    **dict.fromkeys(("cp866", "cp1251"), (("CYRILLIC",),)),
    **dict.fromkeys(("cp737", "cp1253"), (("GREEK",),)),
    **dict.fromkeys(("cp862", "cp1255"), (("HEBREW",),)),
    "cp1256": (("ARABIC",),),
    "cp874": (("THAI",),),
}
"""Begins of the names of letters that may stand in one word, by encoding; all other encodings have Latin letters."""

_FOLDERS = frozenset(
    {
        *("__macosx", "@eadir", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd", ".temporaryitems"),
        *(".documentrevisions-v100", "$recycle.bin", "system volume information", "#recycle", "network trash folder"),
    }
)
_FILES = frozenset(
    {
        *(".ds_store", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", ".apdisk"),
        *(".localized", ".picasa.ini", ".nomedia", ".volumeicon.icns"),
    }
)
_SIDECARS = (".json", ".xml", ".txt", ".csv", ".tsv", ".xmp", ".aae")


def find_unicode(raw: bytes, flags: int, extra: bytes) -> str | None:
    """Return the name that an entry has in Unicode, or None when it has none: its encoding must be found."""
    if flags & _UTF8_NAME and (found := _decode_utf8(raw)) is not None:
        return found
    value = find_extra(extra, _UNICODE_PATH)
    if len(value) > 5:
        version, checksum = struct.unpack_from("<BL", value)
        if version == 1 and checksum == zlib.crc32(raw) and (found := _decode_utf8(value[5:])) is not None:
            return found
    return _decode_utf8(raw)


def choose_encoding(raws: Iterable[bytes]) -> str:
    """Return the encoding in which names, all together, look most like text."""
    text = b"\n".join(raws)
    if len(text) > _SAMPLE_BYTES:
        whole, _, cut = text[:_SAMPLE_BYTES].rpartition(b"\n")
        text = whole or cut
    order = [_DEFAULT_ENCODING, *zips.ENCODINGS]
    found = charset_normalizer.from_bytes(text, cp_isolation=order, steps=1, chunk_size=len(text), threshold=0.9)
    ranked = sorted(
        (
            -_measure_words(text.decode(encoding, "replace"), encoding),
            match.chaos,
            order.index(encoding),
            encoding,
        )
        for match in found
        for encoding in {match.encoding, *match.could_be_from_charset}
        if encoding in order and match.chaos <= _MOST_MESS
    )
    return ranked[0][-1] if ranked else _DEFAULT_ENCODING


def _measure_words(text: str, encoding: str) -> float:
    """Return the share of the characters beyond ASCII that stand in words of one script of the encoding alone.

    charset-normalizer judges long texts; of a name of four letters it takes a mixture of scripts for a word as well.
    """
    scripts = _SCRIPTS.get(encoding, (("LATIN",),))
    good = sum(
        sum(map(_is_beyond_ascii, word))
        for word in re.findall(r"[^\W\d_]+", text)
        if any(all(unicodedata.name(letter, "").startswith(script) for letter in word) for script in scripts)
    )
    return round(good / max(1, sum(map(_is_beyond_ascii, text))), 1)


def _is_beyond_ascii(character: str) -> bool:
    return not character.isascii()


def decode(raw: bytes, flags: int, extra: bytes, encoding: str) -> str:
    """Return a name as a path with forward slashes and without ``./`` at its begin.

    Bytes that ``encoding`` does not have are decoded in the default encoding, which has all.
    """
    name = find_unicode(raw, flags, extra)
    if name is None:
        try:
            name = raw.decode(encoding)
        except UnicodeDecodeError:
            name = raw.decode(_DEFAULT_ENCODING)
    name = arrivals.normalise_name(name)
    here = _HERE.match(name)
    return name[here.end() :] or "/" if here else name


def is_folder(name: str) -> bool:
    """Return whether a decoded name is that of a folder."""
    return name.endswith("/")


def is_leftover(name: str) -> bool:
    """Return whether a file was added by an operating system or a storage, such as ``.DS_Store`` or ``@eaDir``."""
    parts = name.lower().split("/")
    return parts[-1] in _FILES or parts[-1].startswith("._") or not _FOLDERS.isdisjoint(parts[:-1])


def is_sidecar(name: str) -> bool:
    """Return whether a name is that of a file with texts or tables beside images."""
    return name.lower().endswith(_SIDECARS)


def find_extra(extra: bytes, wanted: int) -> bytes:
    """Return the value of one extra field; empty when there is none, or when the fields cannot be followed."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _decode_utf8(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
