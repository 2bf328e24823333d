"""Names of entries become what the lab called its files, whatever program packed them on whatever system."""

import io
import time

import pytest

from dermq import arrivals, errors, zips
from tests import zips as written
from tests.zips import Member
from worker.intake import directory, names


def read_names(members: list[Member], encoding: str | None = None) -> list[str]:
    return [entry.name for entry in directory.read(io.BytesIO(written.build(members)), encoding).entries]


WORDS = {
    "cp932": ["患者/ほくろ表.jpg", "患者/ソ.jpg"],
    "gb18030": ["病人/黑色素瘤.jpg", "图片/皮肤.jpg"],
    "big5": ["病人/黑色素瘤.jpg", "圖片/皮膚功能.jpg"],
    "cp949": ["환자/흑색종.jpg", "사진/피부.jpg"],
    "cp866": ["Пациент/родинка.jpg", "Снимки/кожа.jpg"],
    "cp1251": ["Пациент/родинка.jpg", "Снимки/кожа.jpg"],
    "cp850": ["Läsion/Bild ä.jpg", "Größe/Übersicht.jpg"],
    "cp437": ["Läsion/Bild ä.jpg", "Größe/Übersicht.jpg", "Señal/naïve.jpg"],
    "cp1252": ["Läsion/Bild ä.jpg", "Größe/Übersicht.jpg"],
    "cp737": ["Ασθενής/κηλίδα.jpg"],
    "cp1253": ["Ασθενής/κηλίδα.jpg"],
}


@pytest.mark.parametrize("encoding", WORDS)
def test_an_encoding_is_found_from_all_names_together(encoding: str) -> None:
    expected = WORDS[encoding]
    assert read_names([Member(name.encode(encoding)) for name in expected]) == expected


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        *(("cp866", "кожа/1.jpg"), ("cp932", "表.jpg"), ("cp932", "ほくろ12.jpg")),
        *(
            ("gb18030", "皮肤.jpg"),
            ("big5", "皮膚.jpg"),
            ("cp850", "Größe.jpg"),
            ("cp437", "é.jpg"),
        ),
        *(("cp1252", "Größe.jpg"), ("cp1250", "łokieć.jpg"), ("cp850", "naïve 2.jpg"), ("cp737", "κηλίδα.jpg")),
    ],
)
def test_an_encoding_is_found_from_one_short_name(encoding: str, name: str) -> None:
    assert read_names([Member(name.encode(encoding))]) == [name]


@pytest.mark.parametrize("encoding", zips.ENCODINGS)
def test_an_encoding_that_is_given_is_used(encoding: str) -> None:
    text = bytes(range(0xC0, 0xE0)).decode(encoding, "ignore").replace("\\", "")
    assert read_names([Member(text.encode(encoding) + b".jpg")], encoding)[0].endswith(".jpg")
    known = {name: words for name, words in WORDS.items() if name == encoding}
    for words in known.values():
        assert read_names([Member(name.encode(encoding)) for name in words], encoding) == words


def test_a_byte_inside_a_character_is_no_separator() -> None:
    """In Shift JIS the second byte of ソ and 表 is that of a backslash."""
    assert "ソ".encode("cp932")[1:] == b"\\"
    raw = "患者\\ソ表.jpg".encode("cp932")
    assert read_names([Member(raw)], "cp932") == ["患者/ソ表.jpg"]


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (Member("ä/ö.jpg".encode(), flags=written.UTF8), "ä/ö.jpg"),
        (Member("ä/ö.jpg".encode()), "ä/ö.jpg"),
        (Member("a\u0308.jpg".encode()), "ä.jpg"),
        (Member(b"\x84.jpg", extra=written.unicode_path(b"\x84.jpg", "ü.jpg")), "ü.jpg"),
        (Member(b"\x84.jpg", extra=written.unicode_path(b"other", "ü.jpg")), "ä.jpg"),
        (Member(b"\xe4\xe4.jpg", flags=written.UTF8, extra=written.unicode_path(b"\xe4\xe4.jpg", "ä.jpg")), "ä.jpg"),
        (Member(b"?.jpg", extra=written.unicode_path(b"?.jpg", "患.jpg")), "患.jpg"),
        (Member(b"./a.jpg"), "a.jpg"),
        (Member(b"././/b/a.jpg"), "b/a.jpg"),
        (Member(b"set\\a\\1.jpg"), "set/a/1.jpg"),
        (Member(b".\\a.jpg"), "a.jpg"),
        (Member(b"a.jpg\0.exe"), "a.jpg\0.exe"),
    ],
)
def test_a_name_is_what_the_lab_called_its_file(member: Member, expected: str) -> None:
    assert read_names([member]) == [expected]


def test_ascii_and_utf8_names_do_not_decide_the_encoding_of_the_others() -> None:
    many = [Member(b"image-%d.jpg" % n) for n in range(500)] + [Member("ünï.jpg".encode())]
    few = [Member(name.encode("cp932")) for name in WORDS["cp932"]]
    assert read_names(many + few)[-2:] == WORDS["cp932"]


def test_twenty_thousand_names_are_sampled() -> None:
    members = [Member(f"患者/ほくろ{n}.jpg".encode("cp932")) for n in range(20_000)]
    assert read_names(members)[19_999] == "患者/ほくろ19999.jpg"


@pytest.mark.parametrize("accents", ["\u0301" * 16_000 + "\u0316" * 16_000, "\u0301\u0316" * 16_000])
def test_very_long_names_cost_little(accents: str) -> None:
    name = f"a{accents}.jpg"
    began = time.process_time()
    assert read_names([Member(f"{n}{name}".encode()) for n in range(20)])[19] == f"19{name}"
    with pytest.raises(errors.Rejected, match="32005 characters; at most 255"):
        arrivals.check_name(name)
    assert time.process_time() - began < 5


def test_a_name_that_becomes_short_enough_is_accepted() -> None:
    assert arrivals.check_name("\u03b1\u0313\u0300\u0345" * 255) == "\u1f82" * 255


@pytest.mark.parametrize(
    "name",
    [
        *("__MACOSX/a/._b.jpg", "._b.jpg", "a/.DS_Store", "Thumbs.db", "a/thumbs.DB", "Desktop.ini", "Icon\r"),
        *("@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg", "a/.AppleDouble/b.jpg", ".Spotlight-V100/x", ".Trashes/a.jpg"),
    ],
)
def test_what_systems_leave_is_told_by_its_name(name: str) -> None:
    assert names.is_leftover(name)


@pytest.mark.parametrize("name", ["a.jpg", ".hidden.jpg", "eaDir/a.jpg", "my Thumbs.db.jpg", "a/._/b.jpg", "@eaDir"])
def test_what_only_looks_like_it_is_not(name: str) -> None:
    assert not names.is_leftover(name)


@pytest.mark.parametrize("name", ["a.json", "b/METADATA.CSV", "readme.txt", "a.jpg.xml", "a.xmp"])
def test_a_sidecar_is_told_by_its_name(name: str) -> None:
    assert names.is_sidecar(name) and not names.is_leftover(name)


GOOD = written.build([Member(b"a.jpg", b"x")])
TAR = bytes(257) + b"ustar\x0000" + bytes(300)


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        b"MZ" + bytes(70_000) + GOOD,
        written.build([Member(b"a.jpg", b"x")], before=b"#!/bin/sh\nunzip $0\n", shift_offsets=False),
        GOOD + bytes(300_000),
        b"PK00" + GOOD,
        written.build([]),
        written.build([Member(b"a.jpg", b"x")], zip64=True),
        written.build([Member(b"a.jpg", b"x")], comment=b"PK\x05\x06" * 5_000),
    ],
)
def test_a_zip_is_a_zip_whatever_stands_before_or_behind_it(data: bytes) -> None:
    zips.check(io.BytesIO(data))
    assert len(directory.read(io.BytesIO(data)).entries) == (data != written.build([]))


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "not_a_zip", "a 7z archive"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(99), "not_a_zip", "a RAR archive"),
        (TAR, "not_a_zip", "a tar archive"),
        (TAR + GOOD, "not_a_zip", "a tar archive"),
        (b"\x1f\x8b\x08" + bytes(99), "not_a_zip", "a gzip file"),
        (b"BZh9" + bytes(99), "not_a_zip", "a bzip2 file"),
        (b"\xfd7zXZ\0" + bytes(99), "not_a_zip", "an xz file"),
        (GOOD[:-10], "not_a_zip", "its end is missing"),
        (b"", "not_a_zip", "not a ZIP archive"),
        (b"\xff\xd8\xff" + bytes(99), "not_a_zip", "not a ZIP archive"),
        (b"PK\x07\x08" + GOOD[:-30], "split_archive", "split"),
        (written.build([Member(b"a.jpg", b"x")], disk=2), "split_archive", "split"),
        (b"z" * 60 + GOOD[-22:-18] + b"\x02\0\x02\0" + GOOD[-14:], "split_archive", "split"),
    ],
)
def test_what_is_no_zip_is_refused_by_name(data: bytes, code: str, text: str) -> None:
    with pytest.raises(errors.UnsupportedFormat) as met:
        zips.check(io.BytesIO(data))
    assert met.value.code == code and text in met.value.detail


def test_many_places_that_look_like_an_end_cost_little() -> None:
    with pytest.raises(errors.UnsupportedFormat):
        zips.check(io.BytesIO(b"PK\x05\x06" * 1_000_000))
