"""Damaged images and archives of every accepted format, through a whole running system.

10,000 images and 1,000 ZIP archives, damaged by ``tests.hostile.mutations``; with ``HOSTILE_SCALE=0.1`` a tenth of
them. No answer may be a 5xx, no program may end, every batch must be conserved, and memory must stay flat.
"""

import collections
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import sqlalchemy as sa

from dermq.models import Archive, Image, Refusal
from dermq.wakeups import Queue
from tests import dicoms, heic_files, samples, servers, zips
from tests.chaos.system import Program, System
from tests.hostile import mutations
from tests.zips import Member

IMAGES, ARCHIVES = 10_000, 1_000
SCALE = float(os.environ.get("HOSTILE_SCALE", "1"))
_BATCH_IMAGES = 500
_BATCH_ARCHIVES = 50
_CLIENTS = 2
_SPEED = 400.0
_FINISH_SECONDS = 1_800
_MOST_GROWTH_BYTES = 100_000_000
"""By so much more memory a program may have at the end than after the first tenth, which fills its caches."""


def run() -> list[str]:
    """Return what was found wrong, and print a table of what became of the files."""
    with (
        tempfile.TemporaryDirectory(prefix="dermq-hostile-logs-") as logs,
        tempfile.TemporaryDirectory(prefix="dermq-hostile-") as folder,
        servers.Valkey() as valkey,
    ):
        url = f"sqlite:///{Path(folder) / 'dermq.sqlite3'}"
        servers.migrate(url)
        with System(Path(folder), Path(logs), url, valkey) as system:
            return _attack(system)


def _attack(system: System) -> list[str]:
    system.start("reaper")
    programs = {"web": system.start_web()}
    [programs["intake"]] = system.start_ready(Queue.INTAKE)
    [programs["classify"]] = system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED)
    pids = {name: _list_pids(program) for name, program in programs.items()}
    statuses = collections.Counter[int]()
    sent: dict[uuid.UUID, int] = {}
    images, archives = int(IMAGES * SCALE), int(ARCHIVES * SCALE)
    warm = max(1, images // 10)
    _send_images(system, range(warm), statuses, sent)
    before = _measure_bytes(programs)
    _send_images(system, range(warm, images), statuses, sent)
    _send_archives(system, range(archives), statuses, sent)
    for batch_id in sent:
        system.seal(batch_id)
    system.finish(*sent, seconds=_FINISH_SECONDS)
    after = _measure_bytes(programs)
    _print_outcomes(system, statuses)
    found = [f"{count} answers {status}" for status, count in statuses.items() if status >= 500 or status == 0]
    found += _compare_programs(programs, pids)
    found += [
        f"{name} grew by {(after[name] - size) / 1e6:.0f} MB"
        for name, size in before.items()
        if after[name] - size > _MOST_GROWTH_BYTES
    ]
    print("MB before and after:", {name: (before[name] // 10**6, after[name] // 10**6) for name in before})
    census = system.census({batch_id: system.get(batch_id).received for batch_id in sent})
    return found + census.breaches + [f"{census.lost} lost, {census.doubled} doubled"][: census.lost + census.doubled]


def _send_images(system: System, seeds: range, statuses: collections.Counter[int], sent: dict[uuid.UUID, int]) -> None:
    whole = list(_make_images())
    for first in range(0, len(seeds), _BATCH_IMAGES):
        part = seeds[first : first + _BATCH_IMAGES]
        batch_id = system.create()
        sent[batch_id] = len(part)

        def send(seed: int, batch_id: uuid.UUID = batch_id) -> int:
            name, data = whole[seed % len(whole)]
            damage, damaged = mutations.mutate(data, seed)
            status, _ = system.put(batch_id, f"{seed} {damage} {name}", damaged)
            return status

        with ThreadPoolExecutor(_CLIENTS) as clients:
            statuses.update(clients.map(send, part))


def _send_archives(
    system: System, seeds: range, statuses: collections.Counter[int], sent: dict[uuid.UUID, int]
) -> None:
    whole = list(_make_archives())
    for first in range(0, len(seeds), _BATCH_ARCHIVES):
        batch_id = system.create()
        sent[batch_id] = 0
        for seed in seeds[first : first + _BATCH_ARCHIVES]:
            _, damaged = mutations.mutate(whole[seed % len(whole)], seed)
            status, _ = system.call("PUT", f"/api/v1/batches/{batch_id}/archive", damaged, "application/zip")
            statuses[status] += 1


def _make_images() -> Iterator[tuple[str, bytes]]:
    """Yield whole images of every accepted format, by file name."""
    for seed in range(2):
        picture = samples.picture(160, 120, seed)
        yield f"{seed}.jpg", samples.encoded(picture)
        yield f"{seed} progressive.jpg", samples.encoded(picture, progressive=True)
        yield f"{seed} cmyk.jpg", samples.encoded(picture.convert("CMYK"))
        yield f"{seed}.png", samples.encoded(picture, "PNG")
        yield f"{seed} palette.png", samples.encoded(picture.convert("P"), "PNG")
        yield f"{seed}.tif", samples.encoded(picture, "TIFF")
        yield f"{seed} lzw.tif", samples.encoded(picture, "TIFF", compression="tiff_lzw")
        yield f"{seed}.webp", samples.encoded(picture, "WEBP")
        yield f"{seed} lossless.webp", samples.encoded(picture, "WEBP", lossless=True)
        yield f"{seed}.bmp", samples.encoded(picture, "BMP")
        yield f"{seed}.avif", samples.encoded(picture, "AVIF")
        yield f"{seed}.jp2", samples.encoded(picture, "JPEG2000")
        yield from ((f"{seed} {name}.dcm", data) for name, data in dicoms.colour(picture).items())
    yield "heic.heic", heic_files.COLOURS


def _make_archives() -> Iterator[bytes]:
    """Yield whole archives, each of a few images, as different programs write them."""
    files = dict(list(_make_images())[:8])
    yield samples.archive(files)
    yield samples.archive(files, compression=0)
    members = [Member(name.encode(), data, zips.DEFLATED) for name, data in files.items()]
    yield zips.build([Member(m.name, m.content, zips.DEFLATED, zips.DESCRIPTOR) for m in members])
    yield zips.build(members, zip64=True)
    yield zips.build(members, before=b"MZ" + bytes(500), after=bytes(200), comment=b"comment")
    named = [Member("患者/ソ.jpg".encode("cp932"), samples.jpeg(1)), Member(b"a/", b""), Member(b"._a", b"x")]
    yield zips.build([*named, Member(b"x.jpg", samples.jpeg(2), extra=zips.unicode_path(b"x.jpg", "ü.jpg"))])


def _list_pids(program: Program) -> set[int]:
    return {program.pid, *(child.pid for child in program.children())}


def _compare_programs(programs: dict[str, Program], pids: dict[str, set[int]]) -> list[str]:
    return [
        f"{name} was started again"
        for name, one in programs.items()
        if one.starts != 1 or _list_pids(one) != pids[name]
    ]


def _measure_bytes(programs: dict[str, Program]) -> dict[str, int]:
    """Return the memory of each program with its children; that of decoders apart, which are replaced as they grow."""
    found = {}
    for name, program in programs.items():
        family = [program.process, *program.process.children(recursive=True)]
        sizes = {True: 0, False: 0}
        for one in family:
            try:
                sizes["decoders" in " ".join(one.cmdline())] += one.memory_info().rss
            except psutil.Error:
                continue  # it has just ended, as a decoder may
        found[name] = sizes[False]
        if sizes[True]:
            found[f"decoders of {name}"] = sizes[True]
    return found


def _print_outcomes(system: System, statuses: collections.Counter[int]) -> None:
    for title, wanted in (
        ("images", sa.select(Image.state, Image.error_code, sa.func.count()).group_by(Image.state, Image.error_code)),
        ("refused", sa.select(Refusal.code, sa.func.count()).group_by(Refusal.code)),
        (
            "archives",
            sa.select(Archive.state, Archive.error_code, sa.func.count()).group_by(Archive.state, Archive.error_code),
        ),
    ):
        print(f"{title}:", *sorted(" ".join(map(str, row)) for row in system.rows(wanted)), sep="\n  ")
    print("answers:", dict(sorted(statuses.items())), f"at {time.strftime('%H:%M:%S')}", flush=True)
