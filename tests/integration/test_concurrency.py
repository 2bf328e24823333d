"""Concurrent work on both databases: exact counts, a fair order, and no deadlock that reaches a caller."""

import pytest

from dermq import bundles, db
from dermq.models import Lab
from dermq.queue import claims
from dermq.settings import Settings
from tests import fakes, scenarios


def test_a_storm_leaves_every_image_once(sessions: db.Sessions, bundle: bundles.Bundle, settings: Settings) -> None:
    seen = scenarios.storm(sessions, bundle, settings)
    assert not seen.errors
    assert (seen.unfinished, seen.doubled, seen.late, seen.breaches) == (0, 0, 0, [])
    assert seen.tried, "nothing was tried"


def test_what_an_open_claim_took_is_recorded_and_the_rest_is_cancelled(
    sessions: db.Sessions, bundle: bundles.Bundle
) -> None:
    found = scenarios.cancel_during_a_claim(sessions, bundle)
    assert found == {"received": 100, "queued": 0, "running": 0, "done": 64, "failed": 0, "cancelled": 36}


def test_ten_images_are_claimed_within_a_round_behind_a_hundred_thousand(
    sessions: db.Sessions, bundle: bundles.Bundle
) -> None:
    turn = scenarios.a_small_lab_behind_a_large_one(sessions, bundle)
    assert (turn.images, turn.claims) == (10, 1) and turn.waited <= turn.round


def test_who_cancelled_a_hundred_thousand_waits_no_longer_for_ten_more(
    sessions: db.Sessions, bundle: bundles.Bundle
) -> None:
    turn = scenarios.a_lab_that_cancelled_comes_back(sessions, bundle)
    assert (turn.images, turn.claims) == (10, 1) and turn.waited <= turn.round


def test_a_retry_of_old_failures_pushes_nobody_aside(sessions: db.Sessions, bundle: bundles.Bundle) -> None:
    turn = scenarios.an_old_failure_is_retried_while_a_lab_arrives(sessions, bundle)
    assert (turn.images, turn.claims) == (10, 1) and turn.waited <= turn.round
    old, steady = turn.afterwards.values()
    assert abs(old - steady) <= 64, "they share alike afterwards"


def test_weights_hold_with_several_workers_claiming_at_once(sessions: db.Sessions, bundle: bundles.Bundle) -> None:
    light, heavy = scenarios.shares(sessions, bundle, (1.0, 3.0), count=250, workers=4)
    assert light + heavy == 1_000
    assert heavy / light == pytest.approx(3, rel=0.05)


def test_urgent_batches_get_three_turns_of_four(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> None:
    who = scenarios.claimant(sessions, bundle)
    ordinary, urgent = (fakes.create(sessions, lab, bundle, urgent=urgent) for urgent in (False, True))
    scenarios.fill(sessions, [ordinary, urgent], 400)
    first = db.transact(sessions, claims.take, who, 1)
    assert first is not None and first.images[0].batch_id == urgent.id, "urgent comes first"
    for _ in range(39):
        db.transact(sessions, claims.take, who, 4)  # four turns of one image each
    assert fakes.get(sessions, urgent).running == pytest.approx(3 * fakes.get(sessions, ordinary).running, abs=4)


def test_weights_of_one_and_three_get_one_and_three_parts(sessions: db.Sessions, bundle: bundles.Bundle) -> None:
    light, heavy = scenarios.shares(sessions, bundle, (1.0, 3.0), count=250)
    assert light + heavy == 1_000
    assert heavy / light == pytest.approx(3, rel=0.05)
