"""The ISO base media file format (ISO/IEC 14496-12) of HEIC, AVIF and videos: the box ``ftyp`` lists brands."""

_MOST_BRANDS = 64


def list_brands(head: bytes) -> frozenset[bytes]:
    """Return the brands of a file, with its major one; none when its leading bytes are no such box."""
    length = int.from_bytes(head[:4], "big")
    if head[4:8] != b"ftyp" or length < 12:
        return frozenset()
    listed = head[8 : min(length, 16 + 4 * _MOST_BRANDS)]
    return frozenset(listed[at : at + 4] for at in range(0, len(listed), 4) if at != 4)  # 4: the minor version
