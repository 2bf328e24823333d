"""The session key is created once and completely, and only its owner can read it."""

import threading
from pathlib import Path

from web.access import keys


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "var" / "session-key"
    first = keys.read_session_key(path)
    assert len(first) >= 32
    assert keys.read_session_key(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["session-key"]


def test_the_token_for_metrics_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics-token"
    first = keys.read_metrics_token(path)
    assert len(first) >= 43 and keys.read_metrics_token(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.read_metrics_token(tmp_path / "other") != first


def test_programs_that_start_together_agree(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(keys.read_session_key(tmp_path / "session-key")))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 and len(set(found)) == 1
