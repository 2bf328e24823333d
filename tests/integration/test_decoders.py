"""Decoders as programs: what they may do, what they cost, and what becomes of them and of their images."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import psutil
import pytest
import tifffile

from dermq import errors, imaging
from dermq.settings import Settings
from tests import bombs, deadly_decoder, fakes, samples
from worker.decoders import decoder, program
from worker.decoders.decoder import Decoder, Lost
from worker.decoders.frames import Request
from worker.decoders.pool import Decoders, Job

VIEW = Request(64, 2, draft=False, max_pixels=50_000_000, max_side=20_000)
MEMORY_BYTES = 1_500_000_000
SECONDS = 20.0
BLACK = samples.encoded(samples.picture().point(lambda value: 0), "PNG")
Start = Callable[..., Decoder]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts one decoder, of ours or of another command."""
    with contextlib.ExitStack() as stack:

        def begin(command: Sequence[str] = (), *, memory_bytes: int = MEMORY_BYTES) -> Decoder:
            found = Decoder(command or decoder.COMMAND, memory_bytes=memory_bytes, seconds=SECONDS)
            stack.callback(found.close)
            found.wait_until_ready()
            return found

        yield begin


@pytest.fixture
def pool() -> Iterator[Callable[..., Decoders]]:
    """Starts a pool whose decoders end over some files."""
    with contextlib.ExitStack() as stack:

        def begin(deaths: dict[str, str], **changes: object) -> Decoders:
            settings = Settings(_env_file=None, **changes)  # type: ignore[arg-type]
            found = Decoders(settings, deadly_decoder.command(deaths) if deaths else ())
            return stack.enter_context(contextlib.closing(found))

        yield begin


def job(data: bytes, lab_id: int = 1) -> Job:
    return Job(lab_id, VIEW, lambda: data)


def decode(by: Decoder, data: bytes) -> np.ndarray:
    until = time.monotonic() + 60
    by.send(VIEW, data, until)
    return by.receive(VIEW.size, until).pixels


def eventually(true: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


# what it gives


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000"])
def test_a_decoder_gives_the_pixels_that_training_sees(start: Start, name: str) -> None:
    data = samples.encoded(samples.picture(301, 203), name)
    found = Decoder.receive
    one = start()
    one.send(VIEW, data, until := time.monotonic() + 60)
    picture = found(one, VIEW.size, until)
    assert picture.pixels.tobytes() == imaging.prepare(data, VIEW.size).tobytes()
    assert picture.thumbnail == imaging.make_thumbnail(imaging.decode(data, max_pixels=VIEW.max_pixels))
    assert picture.size == (301, 203)


def test_a_decoder_lacks_no_module_that_rare_files_need(start: Start) -> None:
    one = start()
    picture = samples.picture(64, 48)
    wide = np.asarray(picture).astype(np.uint16) * 257
    files = [
        samples.encoded(picture, "TIFF", compression=coding)
        for coding in ("tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate")
    ]
    files += [_tiff(np.asarray(picture), coding) for coding in ("lzma", "zstd", "webp", "jpeg2000", "lerc", "png")]
    files += [bytes(imagecodecs.png_encode(wide)), bytes(imagecodecs.jpeg8_encode(wide >> 4, bitspersample=12))]
    files += [samples.encoded(picture.convert("1"), "TIFF", compression=coding) for coding in ("group3", "group4")]
    files += [samples.encoded(picture.convert(mode), "PNG") for mode in ("L", "LA", "RGBA", "P", "I;16", "1")]
    files += [samples.encoded(picture.convert("CMYK"), name) for name in ("JPEG", "TIFF")]
    files += [samples.encoded(picture, "JPEG", progressive=True), samples.encoded(picture, "WEBP", lossless=True)]
    files.append(samples.encoded(picture.quantize(16), "BMP"))
    for data in files:
        assert decode(one, data).tobytes() == imaging.prepare(data, VIEW.size).tobytes()


def _tiff(pixels: np.ndarray, coding: str) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, photometric="rgb", compression=coding)
    return out.getvalue()


def test_an_import_that_comes_too_late_does_not_blame_the_file(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    late = "import io,sys; from worker.decoders import program; program.warm_up(); sys.modules.pop('tifffile');"
    code = (
        late + "from dermq import imaging, errors\n"
        "def read(*_, **__):\n"
        "    try:\n        import a_module_that_nobody_imported\n"
        "    except ImportError as err:\n        raise errors.Permanent('damaged', 'The file is damaged.') from err\n"
        "imaging.read = read; out = io.BytesIO(); program.answer(b'', program._SMALL, out); print(out.getvalue())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "a_module_that_nobody_imported" in told and "damaged" not in told


# what it may do


def _probe(what: str) -> str:
    """A program that is confined as a decoder is, then tries something and tells the error."""
    return (
        "import ctypes, os, resource, signal, socket, subprocess, sys, threading\n"
        "from worker.decoders import confinement\n"
        f"confinement.give_up_rights({MEMORY_BYTES})\n"
        f"try:\n    {what}\nexcept BaseException as err:\n    told = type(err).__name__\nelse:\n    told = 'allowed'\n"
        "os.write(1, told.encode())\nos._exit(0)\n"
    )


FORBIDDEN = {
    "read a file": "open('/etc/passwd').read()",
    "write a file": "open('/tmp/dermq-escaped', 'w').write('x')",
    "list a folder": "os.listdir('/')",
    "open a socket": "socket.socket()",
    "open a pipe": "os.pipe()",
    "start a program": "subprocess.run(['/bin/true'])",
    "become a program": "os.execv('/bin/true', ['true'])",
    "start a process": "os.fork() or os._exit(0)",
    "send a signal": "os.kill(os.getppid(), 0)",
    "become root": "os.setuid(0)",
    "raise its limit of files": "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "raise its limit of memory": "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "take more memory": "bytearray(2 * 10**9)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the promise is made for Linux")
@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_decoder_cannot(what: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _probe(FORBIDDEN[what])], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    assert told in {"PermissionError", "OSError", "RuntimeError", "MemoryError", "ValueError", "BlockingIOError"}, told


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is one of Linux")
def test_a_decoder_cannot_look_into_the_memory_of_its_worker() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            _probe(
                "assert ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) == -1"
                " and ctypes.get_errno() == 1 and (_ for _ in ()).throw(PermissionError)"
            ),
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert told == "PermissionError"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_a_decoder_has_no_rights_no_variables_and_only_its_pipes(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMQ_DATABASE_URL", "postgresql://dermq:secret@example/dermq")
    with Path(__file__).open() as ours:
        os.set_inheritable(ours.fileno(), True)
        one = start()
    folder = Path(f"/proc/{one.pid}")
    lines = (line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    status = {name: value.split() for name, value in lines}
    assert status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"] and status["Threads"] == ["1"]
    if os.getuid() == 0:
        assert set(status["Uid"]) == {"65534"} and set(status["Gid"]) == {"65534"} and status["Groups"] == []
        assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0
        assert b"secret" not in (folder / "environ").read_bytes()
        pipes = sorted(str(path.readlink()) for path in (folder / "fd").iterdir())
        assert len(pipes) == 3 and pipes[0] == os.devnull and all(pipe.startswith("pipe:") for pipe in pipes[1:])
        assert (folder / "cwd").readlink() == Path("/")
    limits = {line[:25].strip(): line[26:].split()[:2] for line in (folder / "limits").read_text().splitlines()}
    for name in ("Max open files", "Max file size", "Max core file size"):
        assert limits[name] == ["0", "0"], name
    assert limits["Max address space"] == [str(MEMORY_BYTES)] * 2
    assert psutil.Process(one.pid).children() == []


# what becomes of it


def test_what_the_parent_holds_does_not_count_as_memory_of_a_decoder(start: Start) -> None:
    held = np.ones(400 << 20, np.uint8)
    one = start()
    decode(one, samples.jpeg())
    assert held.any() and not one.has_grown()


def test_a_decoder_that_took_much_memory_is_replaced(pool: Callable[..., Decoders]) -> None:
    decoders = pool({deadly_decoder.sha256(BLACK): "grow"})
    assert eventually(lambda: all(place._decoder is not None for place in decoders._places))
    before = {place._decoder.pid for place in decoders._places if place._decoder}
    decoders.submit([big := job(BLACK)])
    big.future.result(timeout=60)
    assert eventually(
        lambda: sum(place._decoder is not None and place._decoder.pid in before for place in decoders._places) == 1
    )


def test_a_decoder_is_replaced_after_many_images(
    pool: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.decoders.pool.RECYCLE_IMAGES", 5)
    decoders = pool({})
    pids = set()
    for _ in range(24):
        decoders.submit([one := job(samples.jpeg())])
        one.future.result(timeout=60)
        pids |= {place._decoder.pid for place in decoders._places if place._decoder}
    assert len(pids) > 2


def test_memory_after_a_thousand_hostile_files_is_what_it_was(start: Start) -> None:
    one = start()
    hostile = [
        bombs.scans(200, 800),
        bombs.png_header(19_000, 2_600),
        bombs.tiff(*bombs.size_entries(7_000, 7_000)),
        bombs.chunks()[:300_000],
        samples.truncated_jpeg(),
        bombs.strips()[:500_000],
        bombs.jpeg_with_size_behind(7_000, 7_000),
        b"RIFF\xff\xff\xff\xffWEBPVP8L" + bytes(200),
        b"BM" + bytes(12) + b"\x28\0\0\0" + b"\x10\x27\0\0" * 2 + bytes(40),
        samples.jpeg()[:200],
    ]

    def feed(times: int) -> int:
        for data in hostile * times:
            with contextlib.suppress(errors.Permanent):
                decode(one, data)
        return psutil.Process(one.pid).memory_info().rss

    before = feed(5)
    assert feed(95) - before < 20 << 20, "bytes"


def test_a_decoder_dies_with_its_worker(tmp_path: Path) -> None:
    code = (
        "import sys, time; from dermq.settings import Settings; from worker.decoders.pool import Decoders\n"
        "from tests import deadly_decoder\nfrom tests.integration.test_decoders import job\n"
        "decoders = Decoders(Settings(_env_file=None), deadly_decoder.command({'*': 'spin'}))\n"
        "decoders.submit([job(b'x'), job(b'y')])\n"
        "time.sleep(1000)\n"
    )
    worker = psutil.Popen([sys.executable, "-c", code])
    try:
        assert eventually(lambda: sum(child.cpu_times().user > 1.5 for child in worker.children()) == 2, 60)
        children = worker.children()
    finally:
        worker.kill()
        worker.wait()
    assert eventually(lambda: not any(child.is_running() for child in children))


def test_a_decoder_that_nobody_kills_ends_itself(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Decoder(deadly_decoder.command({"*": "spin"}), memory_bytes=MEMORY_BYTES, seconds=0.2)
    with contextlib.closing(found):
        found.wait_until_ready()
        found.send(VIEW, BLACK, time.monotonic() + 60)
        with pytest.raises(Lost, match="SIGALRM"):
            found.receive(VIEW.size, time.monotonic() + 60)
    assert program._GRACE_SECONDS < 10


# what becomes of images


def test_an_image_over_which_a_decoder_was_lost_once_is_decoded_by_another(
    pool: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = pool({})
    send = Decoder.send
    killed: list[Decoder] = []

    def send_and_kill(self: Decoder, request: Request, data: bytes, until: float) -> None:
        if data == BLACK and not killed:
            killed.append(self)
            os.kill(self.pid, signal.SIGKILL)
        send(self, request, data, until)

    monkeypatch.setattr(Decoder, "send", send_and_kill)
    decoders.submit([one := job(BLACK)])
    assert one.future.result(timeout=60).pixels.max() == 0
    assert one.losses == 1 and killed


def test_the_second_try_is_alone_in_a_new_decoder(pool: Callable[..., Decoders]) -> None:
    decoders = pool({deadly_decoder.sha256(BLACK): "segfault"})
    quick = [job(samples.jpeg(seed)) for seed in range(10)]
    decoders.submit(quick)
    for each in quick:
        each.future.result(timeout=60)
    counts: list[int] = []
    send = Decoder.send

    def note(self: Decoder, request: Request, data: bytes, until: float) -> None:
        if data == BLACK:
            counts.append(self.decoded)
        send(self, request, data, until)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "send", note)
        decoders.submit([one := job(BLACK)])
        with pytest.raises(errors.Permanent, match="SIGSEGV"):
            one.future.result(timeout=60)
    assert len(counts) == 2 and counts[1] == 0


def test_images_that_hang_hold_one_of_two_decoders_while_another_lab_waits(pool: Callable[..., Decoders]) -> None:
    decoders = pool({deadly_decoder.sha256(BLACK): "hang"})
    decoders.submit([job(BLACK, lab_id=1) for _ in range(1_000)])
    time.sleep(0.5)
    for _ in range(3):
        others = [job(samples.jpeg(seed), lab_id=2) for seed in range(20)]
        decoders.submit(others)
        began = time.monotonic()
        for each in others:
            each.future.result(timeout=60)
        assert time.monotonic() - began < 25
    assert decoders.list_slow_labs() == {1}
    spent = decoders.take_spent()
    assert spent[1] > 1 > spent.get(2, 0) / 5, "only who was slow pays for it"


def test_a_slow_image_is_decoded_all_the_same(pool: Callable[..., Decoders]) -> None:
    decoders = pool({deadly_decoder.sha256(BLACK): "slow"})
    slow = [job(BLACK, lab_id=1) for _ in range(3)]
    quick = [job(samples.jpeg(seed), lab_id=2) for seed in range(10)]
    decoders.submit([*slow, *quick])
    for each in (*slow, *quick):
        assert each.future.result(timeout=60).pixels.shape == (64, 64, 3)
    assert not any(each.losses for each in slow), "to make room is no loss"


def test_closing_does_not_wait_for_slow_images(pool: Callable[..., Decoders]) -> None:
    decoders = pool({"*": "spin"})
    jobs = [job(BLACK) for _ in range(10)]
    decoders.submit(jobs)
    assert eventually(lambda: any(each.decoder is not None for each in jobs))
    began = time.monotonic()
    decoders.close()
    assert time.monotonic() - began < 4
    assert all(each.future.cancelled() for each in jobs)
    assert not [child for child in psutil.Process().children() if "deadly_decoder" in " ".join(child.cmdline())]


def test_a_discarded_image_that_hangs_frees_its_decoder(pool: Callable[..., Decoders]) -> None:
    decoders = pool({deadly_decoder.sha256(BLACK): "hang"})
    hanging = [job(BLACK) for _ in range(4)]
    decoders.submit(hanging)
    assert eventually(lambda: sum(each.slow for each in hanging) >= 2)
    decoders.discard(hanging)
    decoders.submit([one := job(samples.jpeg())])
    one.future.result(timeout=60)
    assert eventually(lambda: all(each.future.cancelled() for each in hanging))


def test_waiting_for_decoders_takes_no_processor_time(pool: Callable[..., Decoders]) -> None:
    decoders = pool({"*": "hang"}, decoders=4)
    decoders.submit([job(BLACK) for _ in range(8)])
    time.sleep(1.5)
    before = psutil.Process().cpu_times()
    time.sleep(2)
    after = psutil.Process().cpu_times()
    assert after.user + after.system - before.user - before.system < 0.5


@pytest.mark.parametrize("name", bombs.PARTS)
def test_a_bomb_costs_a_decoder_next_to_nothing(name: str) -> None:
    data = bombs.PARTS[name]()
    fakes.decoders().submit([one := job(data)])
    with pytest.raises(errors.Permanent) as refused:
        one.future.result(timeout=60)
    assert refused.value.code == "too_many_parts" and one.losses == 0
