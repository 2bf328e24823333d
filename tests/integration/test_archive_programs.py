"""ZIP archives of the programs that labs use arrive with the right names, and with everything that is in them."""

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import inflate64
import pytest

from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch
from tests import fakes, samples, zips
from tests.conftest import missing
from tests.integration.test_unpack import batch, get, refusals, runtime, store
from tests.zips import Member
from worker.classify.runtime import ClassifyRuntime
from worker.intake import unpack

__all__ = ["batch", "runtime"]

NAMES = ["Läsion/Bild ä.jpg", "plain.jpg", "患者/ほくろ ソ.jpg", "Пациент/1.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with images of ``NAMES``, an empty folder, and what macOS, Windows and a NAS leave."""
    root = tmp_path / "set"
    for seed, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(samples.jpeg(seed))
    (root / "empty").mkdir()
    for left in (".DS_Store", "Thumbs.db", "notes.txt"):
        (root / left).write_bytes(b"junk")
    yield root


def packed(folder: Path, *command: str, **environment: str) -> bytes:
    """Return what a program packs of the folder, called in it."""
    if shutil.which(command[0]) is None:
        missing(command[0])
    target = folder.parent / "packed.zip"
    said = [str(target) if word == "ZIP" else word for word in command]
    subprocess.run(said, cwd=folder, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
    return target.read_bytes()


def pack_with_python(folder: Path) -> bytes:
    return Path(shutil.make_archive(str(folder.parent / "python"), "zip", folder)).read_bytes()


PROGRAMS: dict[str, Callable[[Path], bytes]] = {
    "zip -r": lambda folder: packed(folder, "zip", "-r", "ZIP", ".", LC_ALL="C.UTF-8"),
    "zip -r in the C locale": lambda folder: packed(folder, "zip", "-r", "ZIP", ".", LC_ALL="C"),
    "zip to a stream": lambda folder: packed(
        folder, "sh", "-c", f"zip -q -r - . > {folder.parent / 'packed.zip'}", LC_ALL="C.UTF-8"
    ),
    "zip -0 -fz": lambda folder: packed(folder, "zip", "-0", "-fz", "-r", "ZIP", ".", LC_ALL="C.UTF-8"),
    "7z": lambda folder: packed(folder, "7z", "a", "-tzip", "ZIP", ".", LC_ALL="C.UTF-8"),
    "7z with Deflate64": lambda folder: packed(
        folder, "7z", "a", "-tzip", "-mm=Deflate64", "ZIP", ".", LC_ALL="C.UTF-8"
    ),
    "bsdtar": lambda folder: packed(folder, "bsdtar", "--format=zip", "-cf", "ZIP", ".", LC_ALL="C.UTF-8"),
    "Python": pack_with_python,
}


def take(runtime: ClassifyRuntime, batch: Batch, data: bytes) -> Archive:
    archive = store(runtime, batch, data)
    unpack.drain(runtime)
    return get(runtime, archive)


@pytest.mark.parametrize("program", PROGRAMS)
def test_names_and_images_of_a_program_arrive(
    runtime: ClassifyRuntime, batch: Batch, folder: Path, program: str
) -> None:
    found = take(runtime, batch, PROGRAMS[program](folder))
    assert sorted(image.name for image in fakes.images(runtime.sessions, batch)) == sorted(NAMES), program
    assert (found.state, found.refused) == (ArchiveState.DONE, 0), refusals(runtime, batch)
    assert {".DS_Store", "Thumbs.db", "notes.txt"} <= set(found.skipped_names)


@pytest.mark.parametrize(("flag", "how"), [("-mem=ZipCrypto", "ZipCrypto"), ("-mem=AES256", "AES")])
def test_an_archive_with_a_password_is_refused_by_the_kind_of_its_encryption(
    runtime: ClassifyRuntime, batch: Batch, folder: Path, flag: str, how: str
) -> None:
    found = take(runtime, batch, packed(folder, "7z", "a", "-tzip", "-psecret", flag, "ZIP", "plain.jpg"))
    assert (found.received, refusals(runtime, batch)) == (0, {"plain.jpg": "encrypted"})


def finder(files: dict[str, bytes]) -> bytes:
    """Return what Finder packs: UTF-8 without the flag, decomposed, sizes behind entries, a shadow of each file."""
    members = []
    for name, content in files.items():
        raw = name.replace("ä", "a\u0308").encode()
        members.append(Member(raw, content, zips.DEFLATED, zips.DESCRIPTOR, made_by=zips.UNIX, version=20))
        head, _, base = raw.rpartition(b"/")
        shadow = b"__MACOSX/" + head + b"/._" + base if head else b"__MACOSX/._" + base
        members.append(Member(shadow, b"\0\5\x16\7", zips.DEFLATED, zips.DESCRIPTOR, made_by=zips.UNIX))
    folders = [Member(b"L\xc3\xa4sion/".replace(b"\xc3\xa4", b"a\xcc\x88"), made_by=zips.UNIX), Member(b"__MACOSX/")]
    return zips.build(folders + members)


def explorer(files: dict[str, bytes], encoding: str = "cp850") -> bytes:
    """Return what Explorer packs: the code page of its machine where that has all characters, else UTF-8, flagged."""
    members = []
    for name, content in files.items():
        try:
            raw, flags = name.encode(encoding), 0
        except UnicodeEncodeError:
            raw, flags = name.encode(), zips.UTF8
        members.append(Member(raw, content, zips.DEFLATED, flags))
    return zips.build(members)


def powershell(files: dict[str, bytes]) -> bytes:
    """Return what Compress-Archive of PowerShell 5.1 packs: backslashes, and folders that end in one."""
    folders = {name.rpartition("/")[0] for name in files} - {""}
    members = [Member(f"{folder}/".replace("/", "\\").encode(), flags=zips.UTF8) for folder in sorted(folders)]
    members += [
        Member(name.replace("/", "\\").encode(), content, zips.DEFLATED, zips.UTF8) for name, content in files.items()
    ]
    return zips.build(members)


RECONSTRUCTIONS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "Finder": finder,
    "Explorer": explorer,
    "Explorer in Japan": lambda files: explorer(files, "cp932"),
    "PowerShell 5.1": powershell,
}


@pytest.mark.parametrize("program", RECONSTRUCTIONS)
def test_names_of_programs_that_only_other_systems_have_arrive(
    runtime: ClassifyRuntime, batch: Batch, program: str
) -> None:
    files = {name: samples.jpeg(seed) for seed, name in enumerate(NAMES)}
    found = take(runtime, batch, RECONSTRUCTIONS[program](files))
    assert sorted(image.name for image in fakes.images(runtime.sessions, batch)) == sorted(NAMES)
    assert (found.state, found.refused) == (ArchiveState.DONE, 0)


def test_one_entry_may_write_its_separator_in_two_ways(runtime: ClassifyRuntime, batch: Batch) -> None:
    take(runtime, batch, zips.build([Member(b"a/1.jpg", samples.jpeg(1), local_name=b"a\\1.jpg")]))
    assert [image.name for image in fakes.images(runtime.sessions, batch)] == ["a/1.jpg"]


def test_the_encoding_that_was_found_or_given_is_shown(runtime: ClassifyRuntime, batch: Batch) -> None:
    assert (
        take(runtime, batch, zips.build([Member("患者/ソ.jpg".encode("cp932"), samples.jpeg(1))])).encoding == "cp932"
    )
    assert take(runtime, batch, zips.build([Member(b"a.jpg", samples.jpeg(1))])).encoding is None


def test_a_sidecar_is_skipped_and_an_image_with_such_a_name_is_received(runtime: ClassifyRuntime, batch: Batch) -> None:
    files = {"a.jpg": samples.jpeg(1), "a.json": b"{}", "all.csv": b"name\n", "b.txt": samples.jpeg(2), "c.xml": b""}
    found = take(runtime, batch, samples.archive(files))
    assert (found.received, found.refused, found.skipped) == (2, 0, 3)
    assert found.skipped_names == ["a.json", "all.csv", "c.xml"]


def test_a_bomb_of_deflate64_ends_where_its_size_says(runtime: ClassifyRuntime, batch: Batch) -> None:
    packer = inflate64.Deflater()
    content = samples.encoded(samples.picture(), "BMP")
    bomb = packer.deflate(content + bytes(30_000_000)) + packer.flush()
    liar = Member(b"a.bmp", b"", 9, packed=bomb, size=len(content), local_size=len(content))
    good = packer = inflate64.Deflater()
    packed64 = good.deflate(content) + good.flush()
    whole = Member(b"b.bmp", content, 9, packed=packed64)
    broken = Member(b"c.bmp", content, 9, packed=b"\xff" * 99)
    found = take(runtime, batch, zips.build([liar, whole, broken]))
    assert (found.received, refusals(runtime, batch)) == (1, {"a.bmp": "damaged_entry", "c.bmp": "damaged_entry"})


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused_by_name(runtime: ClassifyRuntime, batch: Batch, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("a.jpg", samples.jpeg(1))
    take(runtime, batch, out.getvalue())
    assert refusals(runtime, batch) == {"a.jpg": "unsupported_compression"}
