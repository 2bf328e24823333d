"""Small files that cost much, and large ones that are all header. Each is what an attacker would send."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests import samples

MOST_BYTES = 30_000_000
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def scans(count: int = 20_000, side: int = 4000) -> bytes:
    """A progressive JPEG with many empty scans over all pixels."""
    picture = samples.encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    end = picture.rindex(b"\xff\xd9")
    # One scan of component 1, coefficients 1 to 63, whose only code is the end of a band of 32,767 blocks.
    table = b"\xff\xc4" + struct.pack(">HB16B", 2 + 1 + 16 + 1, 0x10, 1, *[0] * 15) + b"\xe0"
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0x00, 1, 63, 0x00)
    blocks = (side // 8) ** 2
    bits = "".join("0" + f"{0x3FFF:014b}" for _ in range(blocks // 0x7FFF + 1))
    data = int(bits.ljust((len(bits) + 7) // 8 * 8, "1"), 2).to_bytes((len(bits) + 7) // 8, "big")
    one = scan + data.replace(b"\xff", b"\xff\0")
    return picture[:end] + table + one * count + b"\xff\xd9"


def fill_bytes() -> bytes:
    return b"\xff\xd8" + b"\xff" * MOST_BYTES + samples.jpeg()[2:]


def stray_bytes() -> bytes:
    """Bytes between two segments that belong to none."""
    picture = samples.jpeg()
    end = 4 + int.from_bytes(picture[4:6], "big")
    return picture[:end] + b"\0" * MOST_BYTES + picture[end:]


def segments() -> bytes:
    return b"\xff\xd8" + b"\xff\xfe\x00\x02" * (MOST_BYTES // 4) + samples.jpeg()[2:]


def markers_in_a_scan() -> bytes:
    picture = samples.jpeg()
    return picture[:-2] + b"\xff\x01" * (MOST_BYTES // 2) + b"\xff\xd9"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def chunks(name: bytes = b"tEXt", data: bytes = b"") -> bytes:
    """A PNG of as many chunks as fit."""
    picture = samples.encoded(samples.picture(), "PNG")
    one = chunk(name, data)
    return picture[:33] + one * (MOST_BYTES // len(one)) + picture[33:]


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def tiff(*entries: bytes, after: bytes = b"", following: int = 0) -> bytes:
    """A TIFF of one directory, with ``after`` behind it, at 10 + 12 for each entry + 4."""
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", following) + after


def size_entries(width: int = 64, height: int = 48) -> list[bytes]:
    return [entry(256, 4, 1, width), entry(257, 4, 1, height), entry(258, 3, 1, 8), entry(259, 3, 1, 1)]


def strips() -> bytes:
    """Seven million strips, whose offsets and lengths are the same bytes."""
    count = MOST_BYTES // 4
    start = 10 + 12 * 7 + 4
    tags = [*size_entries(), entry(262, 3, 1, 1), entry(273, 4, count, start), entry(279, 4, count, start)]
    return tiff(*tags, after=b"\0\0\0\0" * count)


def rationals() -> bytes:
    count = MOST_BYTES // 8
    start = 10 + 12 * 5 + 4
    return tiff(*size_entries(), entry(282, 5, count, start), after=struct.pack("<II", 1, 1) * count)


def shared_values() -> bytes:
    """Tags that all have the same megabyte of text."""
    start = 10 + 12 * 904 + 4
    tags = [*size_entries(), *(entry(40_000 + at, 2, 1_000_000, start) for at in range(900))]
    return tiff(*tags, after=b"x" * 1_000_000)


def tags() -> bytes:
    return tiff(*size_entries(), *(entry(1000 + at, 3, 1, 0) for at in range(60_000)))


def directories(count: int = 100_000) -> bytes:
    """A chain of empty directories."""
    chain = b"".join(struct.pack("<HI", 0, 8 + 6 * (at + 1)) for at in range(count))
    return b"II*\0" + struct.pack("<I", 8) + chain


def exif_in_jpeg() -> bytes:
    """A JPEG whose EXIF data, joined from segments, has the tags of a bomb."""
    block, picture = shared_values(), samples.jpeg()
    parts = (block[at : at + 65_000] for at in range(0, len(block), 65_000))
    told = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
    return picture[:2] + told + picture[2:]


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in parts
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunks() -> bytes:
    canvas = b"VP8X", struct.pack("<I", 0) + b"\x3f\0\0" + b"\x2f\0\0"
    return riff(canvas, *[(b"XXXX", b"")] * 1_000_000)


def webp_frames() -> bytes:
    frames = [Image.new("RGB", (2, 2), (at % 255, at // 255, 0)) for at in range(1_200)]
    return samples.encoded(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, minimize_size=False
    )


def heic_items(count: int = 200_000) -> bytes:
    """A HEIC whose list of items has no end."""
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x15infe\2\0\0\0\0\1\0\0hvc1\0" * count


def jpeg_2000_header(width: int, height: int, tile: int, components: int = 3) -> bytes:
    """The beginning of a codestream."""
    sizes = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, tile, tile, 0, 0, components)
    body = sizes + b"\7\1\1" * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(body) + 2) + body


def dicom_elements(count: int = 3_000_000) -> bytes:
    """A DICOM file of empty elements."""
    return bytes(128) + b"DICM" + b"\x09\0\x10\0LO\0\0" * count


def dicom_items(count: int = 3_000_000) -> bytes:
    """A DICOM file of a sequence of empty items."""
    sequence = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff"
    return bytes(128) + b"DICM" + sequence + b"\xfe\xff\0\xe0\0\0\0\0" * count


def dicom_elements_in_a_sequence(count: int = 3_000_000) -> bytes:
    """A DICOM file of empty elements, in an item of a sequence without a length."""
    sequence = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    return bytes(128) + b"DICM" + sequence + b"\x09\0\x10\0LO\0\0" * count


def dicom_packed(content: bytes, times: int) -> bytes:
    """A DICOM file whose elements are packed."""
    told = b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(packer.compress(content) for _ in range(times)) + packer.flush()
    header = b"\x02\0\0\0UL\x04\0" + struct.pack("<I", len(told)) + told
    return bytes(128) + b"DICM" + header + packed


def directories_below(count: int = 200_000) -> bytes:
    """A TIFF whose one directory names many others below it."""
    start = 10 + 12 * 5 + 4
    return tiff(*size_entries(), entry(330, 4, count, start), after=struct.pack("<I", 8) * count)


def tags_below(count: int = 60_000) -> bytes:
    """A TIFF whose directory has one below it that is all tags."""
    start = 10 + 12 * 5 + 4
    after = struct.pack("<H", count) + entry(1000, 3, 1, 0) * count
    return tiff(*size_entries(), entry(330, 4, 1, start), after=after)


PARTS: dict[str, Callable[[], bytes]] = {
    "JPEG of 20,000 scans": scans,
    "JPEG of fill bytes": fill_bytes,
    "JPEG of stray bytes": stray_bytes,
    "JPEG of comments": segments,
    "JPEG of markers in a scan": markers_in_a_scan,
    "JPEG with tags in its EXIF data": exif_in_jpeg,
    "PNG of empty chunks": chunks,
    "PNG of empty pieces of pixels": lambda: chunks(b"IDAT"),
    "TIFF of seven million strips": strips,
    "TIFF of a tag of rationals": rationals,
    "TIFF of tags with shared values": shared_values,
    "TIFF of 60,000 tags": tags,
    "TIFF of 100,000 directories": directories,
    "TIFF of 200,000 directories below one": directories_below,
    "TIFF of 60,000 tags in a directory below": tags_below,
    "WebP of empty chunks": webp_chunks,
    "WebP of 1,200 frames": webp_frames,
    "HEIC of 200,000 items": heic_items,
    "JPEG 2000 of a million tiles": lambda: jpeg_2000_header(1_000, 1_000, 1),
    "JPEG 2000 of 16,000 components": lambda: jpeg_2000_header(10, 10, 10, 16_000),
    "DICOM of three million elements": dicom_elements,
    "DICOM of three million items": dicom_items,
    "DICOM of three million elements in a sequence": dicom_elements_in_a_sequence,
    "DICOM of a million packed elements": lambda: dicom_packed(b"\x09\0\x10\0LO\0\0" * 10_000, 100),
    "DICOM of 400 packed megabytes": lambda: dicom_packed(bytes(1_000_000), 400),
}
"""Files that are refused as ``too_many_parts``."""


def png_header(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, whose pixels are left out."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return _PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def thin_png(height: int = 50_000_000) -> bytes:
    """One pixel wide, 97 kB."""
    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(2_000_000)) for _ in range(height // 1_000_000)) + rows.flush()
    header = struct.pack(">IIBBBBB", 1, height, 1, 0, 0, 0, 0)
    return _PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_with_size_behind(width: int, height: int) -> bytes:
    """A JPEG whose frame header stands behind the bytes that the web reads."""
    picture = bytearray(samples.jpeg())
    at = picture.index(b"\xff\xc0") + 5
    picture[at : at + 4] = struct.pack(">HH", height, width)
    comment = b"\xff\xfe" + struct.pack(">H", 65_000) + bytes(64_998)
    return bytes(picture[:2]) + comment * 2 + bytes(picture[2:])


SIZES: dict[str, Callable[[], bytes]] = {
    "PNG of 1 x 50,000,000": thin_png,
    "PNG of 8,000 x 8,000": lambda: png_header(8_000, 8_000),
    "JPEG of 65,000 x 100 behind comments": lambda: jpeg_with_size_behind(65_000, 100),
    "TIFF of 30,000 x 10": lambda: tiff(*size_entries(30_000, 10)),
    "TIFF of 1,000,000 x 1,000,000": lambda: tiff(*size_entries(1_000_000, 1_000_000)),
    "TIFF with tiles of 60,000 x 16": lambda: tiff(*size_entries(), entry(322, 4, 1, 60_000), entry(323, 4, 1, 16)),
    "HEIC of 30,000 x 30,000": lambda: heic_items(1) + b"\0\0\0\x14ispe" + struct.pack(">III", 0, 30_000, 30_000),
    "JPEG 2000 of 30,000 x 10": lambda: jpeg_2000_header(30_000, 10, 30_000),
    "BMP of 1 x 30,000": lambda: (
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<Iii", 40, 1, -30_000) + bytes(28)
    ),
}
"""Files that are refused as ``side_too_long`` or ``too_many_pixels``."""


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rle_bmp(side: int = 6_000) -> bytes:
    """A BMP of runs, which Pillow decodes by Python: slow, but a valid image."""
    palette = bytes(1024)
    pixels = (b"\x02\x01" * (side // 2) + b"\0\0") * side + b"\0\1"
    offset = 14 + 40 + len(palette)
    header = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return header + info + palette + pixels


def as_bytes(image: Image.Image, name: str) -> bytes:
    out = io.BytesIO()
    image.save(out, name)
    return out.getvalue()
