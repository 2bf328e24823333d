"""The programs of ``make run`` and their configuration, without a start."""

import configparser
from pathlib import Path

import pytest

from dermq import imaging
from embedded import demo, programs, valkey
from worker import tasks


@pytest.fixture
def found() -> dict[str, programs.Program]:
    return {program.name: program for program in programs.list_programs(Path("/tmp/socket"))}


def test_the_web_stops_first_and_valkey_last(found: dict[str, programs.Program]) -> None:
    order = [found[name].stop_order for name in ("web", "reaper", "classify", "intake", "valkey")]
    assert order == sorted(order, reverse=True)
    assert found["classify"].stop_order == found["intake"].stop_order


def test_everything_has_stopped_within_twenty_seconds(found: dict[str, programs.Program]) -> None:
    longest: dict[int, int] = {}
    for program in found.values():
        longest[program.stop_order] = max(program.stop_seconds, longest.get(program.stop_order, 0))
    assert sum(longest.values()) < 20


def test_a_worker_that_cannot_verify_ends_with_the_status_that_is_not_restarted() -> None:
    assert programs.CANNOT_VERIFY == tasks.UNFIT


def test_a_worker_that_stalled_is_started_again(found: dict[str, programs.Program]) -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(programs.make_configuration(list(found.values()), {}))
    assert parser["program:intake"]["autorestart"] == "true"
    assert parser["program:classify"]["autorestart"] == "unexpected"
    assert str(tasks.FAILED) not in parser["program:classify"]["exitcodes"].split(",")


def test_a_given_redis_needs_no_valkey() -> None:
    assert "valkey" not in {program.name for program in programs.list_programs(None)}


def test_programs_of_make_dev_stop_in_the_time_of_those_of_make_run(found: dict[str, programs.Program]) -> None:
    reloading = {program.name: program for program in programs.list_programs(Path("/tmp/socket"), reload=True)}
    assert set(reloading) == set(found) | {"demo"}
    for name in ("web", "classify", "intake", "reaper"):
        command = reloading[name].command
        assert command[1:3] == ["-m", "watchfiles"] and "dermq" in command[-2:]
        sigint, sigkill = (
            int(command[command.index(option) + 1]) for option in ("--sigint-timeout", "--sigkill-timeout")
        )
        assert sigint + sigkill <= reloading[name].stop_seconds == found[name].stop_seconds


def test_a_generated_picture_is_an_image_and_the_same_each_time() -> None:
    assert imaging.decode(demo.draw(1), max_pixels=1_000_000).size == (200, 150)
    assert demo.draw(1) == demo.draw(1) != demo.draw(2)


def test_configuration_is_what_supervisor_reads(found: dict[str, programs.Program]) -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(programs.make_configuration(list(found.values()), {"DERMQ_VAR_DIR": "%(here)s"}))
    assert set(parser.sections()) == {"supervisord"} | {f"program:{name}" for name in found}
    assert parser["program:classify"]["exitcodes"] == "78"
    assert parser["program:web"]["autorestart"] == "true"


def test_a_long_or_strange_path_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    assert valkey.find_socket_folder(Path("/srv/dermq/var/run")) == Path("/srv/dermq/var/run")
    for folder in (Path("/srv") / ("long" * 30), Path("/srv/a folder #1/var/run")):
        elsewhere = valkey.find_socket_folder(folder)
        assert elsewhere != folder and elsewhere.stat().st_mode & 0o777 == 0o700
        elsewhere.rmdir()
