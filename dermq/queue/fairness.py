"""Who is next: start-time fair queuing over labs, with one tag per lab, applied when claiming.

Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996. A lab starts at ``max(lab.tag, queue.served)``, so an
idle lab earns no credit; the lab with the least start gives a quantum, and its start grows by what was really taken
divided by its weight, so a cancel costs nothing.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

QUANTA = 4
"""Turns in a claim: a quantum is at most a quarter of it."""
URGENT_TURNS = 3
"""Turns in a row that urgent batches get while other batches of the same lab wait."""

Take = Callable[[uuid.UUID, int], int]
"""Takes up to so many images of a batch and says how many there were."""


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

    def turn(self, quantum: int, take: Take) -> int:
        """Give up to ``quantum`` images, urgent batches first but not for ever; says how many were taken."""
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
    """Hand out up to ``most`` images in turns and return the new ``served``: the greatest start given, never less."""
    quantum = max(1, most // QUANTA)
    waiting = list(contenders)
    while most > 0 and waiting:
        lab = min(waiting, key=lambda contender: (contender.start, contender.lab_id))
        start = lab.start
        taken = lab.turn(min(quantum, most), take)
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
