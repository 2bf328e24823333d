"""The fair order of labs: start-time fair queuing with one tag for each lab, computed when images are claimed.

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996. A lab starts at ``max(lab.tag, queue.served)``, so
an idle lab earns no credit. The lab with the least start gets the next turn and gives up to a quantum of images. Then
its start grows by the number of images taken, divided by its weight, so cancelled images cost it nothing.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

QUANTA = 4
"""Least number of turns in a full claim: a quantum is at most a quarter of the claim."""
SECOND_IMAGES = 20.0
"""A second in which a worker unpacks archives is charged to its lab like this many images."""
URGENT_TURNS = 3
"""Turns in a row that urgent batches get while other batches of the same lab wait."""

Take = Callable[[uuid.UUID, int], int]
"""Takes up to the given number of images from a batch and returns how many it took."""


@dataclass
class Contender:
    """A lab with waiting batches, oldest first."""

    lab_id: int
    weight: float
    start: float
    urgent_turns: int = 0
    urgent: list[uuid.UUID] = field(default_factory=list)
    ordinary: list[uuid.UUID] = field(default_factory=list)
    taken: int = 0

    def take_turn(self, quantum: int, take: Take) -> int:
        """Take up to ``quantum`` images of this lab and return how many were taken.

        Urgent batches come first, but after ``URGENT_TURNS`` turns in a row the other batches do.
        """
        urgent_first = bool(self.urgent) and (not self.ordinary or self.urgent_turns < URGENT_TURNS)
        if urgent_first and self.ordinary:
            self.urgent_turns += 1
        else:
            self.urgent_turns = 0
        first, second = (self.urgent, self.ordinary) if urgent_first else (self.ordinary, self.urgent)
        taken = _take_from(first, quantum, take)
        taken += _take_from(second, quantum - taken, take)
        self.start += taken / self.weight
        self.taken += taken
        return taken


def share(contenders: list[Contender], most: int, served: float, take: Take) -> float:
    """Take up to ``most`` images from the labs in turns; return the new ``served``, the greatest start of a turn."""
    quantum = max(1, most // QUANTA)
    waiting = list(contenders)
    while most > 0 and waiting:
        lab = min(waiting, key=lambda contender: (contender.start, contender.lab_id))
        start = lab.start
        taken = lab.take_turn(min(quantum, most), take)
        most -= taken
        if taken:
            served = max(served, start)
        if not lab.urgent and not lab.ordinary:
            waiting.remove(lab)
    return served


def _take_from(batches: list[uuid.UUID], most: int, take: Take) -> int:
    taken = 0
    while batches and taken < most:
        wanted = most - taken
        got = take(batches[0], wanted)
        taken += got
        if got < wanted:
            batches.pop(0)
    return taken
