"""Turns between labs, without a database."""

import uuid
from collections import Counter

from dermq.queue import fairness
from dermq.queue.fairness import Contender


class Waiting:
    """Images that wait, by batch."""

    def __init__(self) -> None:
        self.left: dict[uuid.UUID, int] = {}
        self.order: list[uuid.UUID] = []

    def batch(self, images: int) -> uuid.UUID:
        batch_id = uuid.uuid4()
        self.left[batch_id] = images
        return batch_id

    def take(self, batch_id: uuid.UUID, wanted: int) -> int:
        taken = min(wanted, self.left[batch_id])
        self.left[batch_id] -= taken
        self.order += [batch_id] * taken
        return taken


def claims(labs: list[Contender], waiting: Waiting, count: int, most: int = 64) -> Counter[int]:
    """Claim ``count`` times and add up what each lab got."""
    got: Counter[int] = Counter()
    served = 0.0
    for _ in range(count):
        for lab in labs:
            lab.start, lab.taken = max(lab.start, served), 0
        served = fairness.share([lab for lab in labs if lab.urgent or lab.ordinary], most, served, waiting.take)
        for lab in labs:
            got[lab.lab_id] += lab.taken
    return got


def test_a_claim_is_filled_by_a_lab_that_is_alone() -> None:
    waiting = Waiting()
    lab = Contender(1, 1.0, 0.0, ordinary=[waiting.batch(100)])
    assert claims([lab], waiting, 1) == {1: 64}


def test_ten_images_of_a_new_lab_come_in_the_first_claim_behind_a_hundred_thousand() -> None:
    waiting = Waiting()
    large = Contender(1, 1.0, 0.0, ordinary=[waiting.batch(100_000)])
    served = 0.0
    for _ in range(50):
        served = fairness.share([large], 64, served, waiting.take)
    small = Contender(2, 1.0, served, ordinary=[waiting.batch(10)])
    fairness.share([large, small], 64, served, waiting.take)
    assert small.taken == 10


def test_weights_of_one_and_three_share_one_to_three() -> None:
    waiting = Waiting()
    labs = [Contender(n, weight, 0.0, ordinary=[waiting.batch(10**6)]) for n, weight in ((1, 1.0), (2, 3.0))]
    got = claims(labs, waiting, 1000)
    assert abs(got[2] / got[1] - 3) < 0.15


def test_an_idle_lab_earns_no_credit() -> None:
    waiting = Waiting()
    busy = Contender(1, 1.0, 0.0, ordinary=[waiting.batch(10**6)])
    idle = Contender(2, 1.0, 0.0)
    served = 0.0
    for _ in range(100):
        served = fairness.share([busy], 64, served, waiting.take)
    idle.start, idle.ordinary = max(idle.start, served), [waiting.batch(10**6)]
    busy.start, busy.taken = max(busy.start, served), 0
    for _ in range(10):
        served = fairness.share([busy, idle], 64, served, waiting.take)
    assert abs(busy.taken - idle.taken) <= 64


def test_urgent_batches_come_first_but_never_more_than_three_turns_of_four() -> None:
    waiting = Waiting()
    urgent, ordinary = waiting.batch(10**6), waiting.batch(10**6)
    lab = Contender(1, 1.0, 0.0, urgent=[urgent], ordinary=[ordinary])
    claims([lab], waiting, 25)
    got = Counter(waiting.order)
    assert waiting.order[0] == urgent and got[urgent] == 3 * got[ordinary]


def test_only_what_was_really_taken_is_charged() -> None:
    waiting = Waiting()
    lab = Contender(1, 2.0, 0.0, ordinary=[waiting.batch(0), waiting.batch(6)])
    claims([lab], waiting, 1)
    assert lab.start == 3.0 and not lab.ordinary


def test_the_oldest_batch_of_a_lab_goes_first() -> None:
    waiting = Waiting()
    old, new = waiting.batch(20), waiting.batch(20)
    claims([Contender(1, 1.0, 0.0, ordinary=[old, new])], waiting, 1, most=30)
    assert waiting.order == [old] * 20 + [new] * 10


def test_a_turn_is_a_quarter_of_a_claim() -> None:
    waiting = Waiting()
    first, second = waiting.batch(100), waiting.batch(100)
    labs = [Contender(1, 1.0, 0.0, ordinary=[first]), Contender(2, 1.0, 0.0, ordinary=[second])]
    claims(labs, waiting, 1, most=40)
    assert waiting.order == [*[first] * 10, *[second] * 10] * 2


def test_what_a_turn_of_urgent_batches_leaves_goes_to_the_others() -> None:
    waiting = Waiting()
    urgent, ordinary = waiting.batch(2), waiting.batch(100)
    claims([Contender(1, 1.0, 0.0, urgent=[urgent], ordinary=[ordinary])], waiting, 1, most=16)
    assert waiting.order == [urgent] * 2 + [ordinary] * 14


def test_served_is_the_greatest_start_that_was_given_and_never_falls() -> None:
    waiting = Waiting()
    labs = [Contender(1, 1.0, 3.0, ordinary=[waiting.batch(4)]), Contender(2, 1.0, 9.0, ordinary=[waiting.batch(0)])]
    assert fairness.share(labs, 64, 0.0, waiting.take) == 3.0, "a lab that had nothing was given nothing"
    labs = [Contender(1, 1.0, 3.0, ordinary=[waiting.batch(4)])]
    assert fairness.share(labs, 64, 5.0, waiting.take) == 5.0
