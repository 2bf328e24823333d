"""Files of 30 MB that are all header, four at a time: the web reads 64 kB of each, so it stays small and quick."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests import bombs, webserver
from tests.webserver import Server

MOST_MEMORY_BYTES = 200_000_000
MOST_PROCESSOR_SECONDS = 3.0
"""For one file. To parse these took the web from 22 to 51 seconds; to receive 30 MB takes a tenth of one."""
BOMBS: dict[str, Callable[[], bytes]] = {
    name: make for name, make in bombs.PARTS.items() if "scans" not in name and "frames" not in name
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("web")
    database = folder / "dermq.sqlite3"
    shutil.copyfile(sqlite_template, database)
    with webserver.serve(folder, f"sqlite:///{database}", web_threads=16) as found:
        yield found


def _programs(server: Server) -> list[psutil.Process]:
    return [server.process, *server.process.children(recursive=True)]


def _used_seconds(server: Server) -> float:
    return sum(used.user + used.system for used in (each.cpu_times() for each in _programs(server)))


@pytest.mark.parametrize("name", BOMBS)
def test_the_web_reads_no_more_than_the_leading_bytes(server: Server, name: str) -> None:
    data = BOMBS[name]()
    batch = server.create()
    before = _used_seconds(server)
    memory = []
    with ThreadPoolExecutor(4) as clients:
        paths = [f"/batches/{batch}/images?name={at}" for at in range(4)]
        sent = [clients.submit(server.call, "PUT", path, data) for path in paths]
        while not all(each.done() for each in sent):
            server.live_seconds()
            memory.append(max(each.memory_info().rss for each in _programs(server)))
    assert {each.result()[0] for each in sent} <= {202}, "only a decoder tells that it has too many parts"
    assert (_used_seconds(server) - before) / 4 < MOST_PROCESSOR_SECONDS
    assert max(memory, default=0) < MOST_MEMORY_BYTES
