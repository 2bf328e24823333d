"""The decoders of a worker process: each has a thread that feeds it, waits for it and replaces it.

A decoder that dies, is too slow or runs out of memory costs its image one of two tries and no other image anything. The
second try is alone in a decoder that has decoded nothing before.
"""

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from dermq import errors
from dermq.settings import Settings
from worker.decoders import decoder
from worker.decoders.decoder import Decoder, Lost
from worker.decoders.frames import Request
from worker.decoders.pictures import Picture
from worker.decoders.turns import PATIENCE_SECONDS, SLOW_SECONDS, Turn, Turns

log = logging.getLogger(__name__)

TRIES = 2
"""How many decoders may be lost over an image before it fails."""
RECYCLE_IMAGES = 2_000
"""A decoder is replaced after this many images, whatever its memory."""
COVERED_SECONDS = 0.01
"""What the charge of one image covers. More seconds are charged to the lab like more images."""


@dataclass(eq=False)
class Job(Turn):
    """An image to be decoded."""

    request: Request
    read: Callable[[], bytes]
    """Reads the file; its errors become those of the future."""
    keep: Callable[[Picture], None] = lambda picture: None
    """Called with the picture, by the decoder's thread, before the future gives it."""
    future: Future[Picture] = field(default_factory=Future, init=False)
    """Gives the picture, or raises Permanent, Transient, or what ``read`` and ``keep`` raise."""
    decoder: Decoder | None = field(default=None, init=False)
    """The decoder that decodes it now."""
    discarded: bool = field(default=False, init=False)


class Decoders:
    """A fixed number of decoders and the images that wait for them. It lives as long as its worker process."""

    def __init__(self, settings: Settings, command: Sequence[str] = ()) -> None:
        """Start the decoders, without waiting for them. ``command`` is another program than ours, for tests."""
        self._seconds = settings.decode_seconds
        self._turns: Turns[Job] = Turns(settings.decoders)
        self._spent: defaultdict[int, float] = defaultdict(float)
        self._changed = threading.Condition()
        self._closed = False
        self._places = [Place(command or decoder.COMMAND, settings) for _ in range(settings.decoders)]
        self._threads = [
            threading.Thread(target=self._serve, args=(place,), name=f"decoder-{at}", daemon=True)
            for at, place in enumerate(self._places)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, jobs: Iterable[Job]) -> None:
        """Let images wait for their turns."""
        with self._changed:
            for job in jobs:
                self._turns.add(job)
            self._make_room()
            self._changed.notify_all()

    def discard(self, jobs: Iterable[Job]) -> None:
        """Forget images whose pictures are wanted no more. Does not wait; a slow decoder is killed."""
        with self._changed:
            for job in jobs:
                job.discarded = True
                if self._turns.discard(job):
                    job.future.cancel()
                elif job.slow and job.decoder is not None:
                    job.decoder.kill()

    def list_slow_labs(self) -> set[int]:
        """Return the labs that have a slow image here, waiting or being decoded."""
        with self._changed:
            return self._turns.list_slow_labs()

    def take_spent(self) -> dict[int, float]:
        """Return the seconds of decoding that labs have used beyond what is charged for an image, and forget them."""
        with self._changed:
            spent, self._spent = self._spent, defaultdict(float)
        return dict(spent)

    def close(self) -> None:
        """Kill every decoder and wait for the threads. Images that are not decoded are cancelled."""
        with self._changed:
            self._closed = True
            for job in self._turns.empty():
                job.future.cancel()
            self._changed.notify_all()
        for place in self._places:
            place.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self, place: "Place") -> None:
        """Decode at one place, image after image, until the pool is closed."""
        try:
            while True:
                with contextlib.suppress(errors.Transient):  # the image that comes next is told
                    place.prepare()
                job = self._wait_for_job()
                if job is None:
                    return
                self._decode(job, place)
        finally:
            place.drop()

    def _wait_for_job(self) -> Job | None:
        """Wait for an image that may start; return None when the pool is closed."""
        with self._changed:
            while not self._closed:
                if (job := self._turns.take(time.monotonic())) is not None:
                    return job
                self._changed.wait()
        return None

    def _decode(self, job: Job, place: "Place") -> None:
        """Decode an image, and settle its future unless it waits for another try."""
        picture: Picture | None = None
        error: BaseException | None = None
        try:
            ready = place.prepare(fresh=job.losses > 0)
            picture = self._converse(job, ready, job.read())
            job.keep(picture)
        except Lost as lost:
            place.drop()
            if self._lose(job, lost):
                return
            error = errors.Permanent(lost.code, lost.detail)
        except BaseException as err:  # the end of a thread: the caller that waits for the picture decides what is done
            error = err
        with self._changed:
            self._end(job)
        if self._closed or job.discarded:
            job.future.cancel()
        elif error is not None:
            job.future.set_exception(error)
        elif picture is not None:
            job.future.set_result(picture)

    def _converse(self, job: Job, decoder: Decoder, data: bytes) -> Picture:
        """Let a decoder decode a file. Raises Permanent when the file cannot be decoded, and Lost."""
        started = time.monotonic()
        until = started + self._seconds
        with self._changed:
            job.decoder = decoder
            if job.stopped or job.discarded:
                decoder.kill()
        try:
            decoder.send(job.request, data, until)
            for seconds in (SLOW_SECONDS, PATIENCE_SECONDS):
                if decoder.wait_for_answer(min(started + seconds, until)):
                    break
                self._note_slow(job, decoder)
            return decoder.receive(job.request.size, until)
        finally:
            with self._changed:
                job.decoder = None
                self._bill(job, time.monotonic() - started - COVERED_SECONDS)

    def _note_slow(self, job: Job, decoder: Decoder) -> None:
        with self._changed:
            self._turns.slow_down(job)
            if job.discarded:
                decoder.kill()
            self._make_room()

    def _make_room(self) -> None:
        """Kill decoders of slow images while others wait. The caller has the lock."""
        while (job := self._turns.stop_one(time.monotonic())) is not None:
            if job.decoder is not None:
                job.decoder.kill()

    def _lose(self, job: Job, lost: Lost) -> bool:
        """Let an image over which a decoder was lost wait for another try; return False when it has none left."""
        with self._changed:
            if self._closed or job.discarded:
                return False
            if not job.stopped:
                job.losses += 1
                log.warning("a decoder was lost over an image (try %d of %d): %s", job.losses, TRIES, lost.detail)
            if job.losses == TRIES:
                return False
            self._end(job)
            self._turns.slow_down(job)
            self._turns.add(job)
            self._changed.notify_all()
            return True

    def _end(self, job: Job) -> None:
        """Note that an image is not being decoded any more; another may be next. The caller has the lock."""
        self._turns.end(job, time.monotonic())
        self._changed.notify_all()

    def _bill(self, job: Job, seconds: float) -> None:
        if seconds > 0:
            self._spent[job.lab_id] += seconds


class Place:
    """A place of the pool, with the decoder that stands there."""

    def __init__(self, command: Sequence[str], settings: Settings) -> None:
        self._command = command
        self._memory_bytes = settings.decoder_memory_bytes
        self._seconds = settings.decode_seconds
        self._decoder: Decoder | None = None

    def prepare(self, *, fresh: bool = False) -> Decoder:
        """Return a decoder that is ready; ``fresh`` when it must have decoded nothing before. Raises Transient."""
        decoder = self._decoder
        used = decoder is not None and decoder.decoded > 0
        if decoder and used and (fresh or decoder.decoded >= RECYCLE_IMAGES or decoder.has_grown()):
            self.drop()
        if self._decoder is None:
            self._decoder = self._start()
        return self._decoder

    def kill(self) -> None:
        """Kill the decoder from another thread; its own thread drops it."""
        decoder = self._decoder
        if decoder is not None:
            decoder.kill()

    def drop(self) -> None:
        """End the decoder, so that another takes its place."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()

    def _start(self) -> Decoder:
        try:
            decoder = Decoder(self._command, memory_bytes=self._memory_bytes, seconds=self._seconds)
        except OSError as err:
            raise errors.Transient("decoder_did_not_start", f"A decoder could not be started: {err}") from err
        try:
            decoder.wait_until_ready()
        except Lost as err:
            decoder.close()
            raise errors.Transient("decoder_did_not_start", f"A decoder did not start: {err.detail}") from err
        return decoder
