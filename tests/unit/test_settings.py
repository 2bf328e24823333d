"""Settings that contradict each other are refused."""

from pathlib import Path

import pydantic
import pytest

from dermq.settings import Settings


def test_a_worker_that_the_reaper_wakes_must_not_count_as_stalled_before() -> None:
    with pytest.raises(pydantic.ValidationError, match="more than 20 is accepted"):
        Settings(stalled_seconds=20, reaper_seconds=15, worker_seen_seconds=5)
    assert Settings(stalled_seconds=21, reaper_seconds=15, worker_seen_seconds=5).stalled_seconds == 21


def test_passwords_are_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p/w@1\n")
    settings = Settings(
        database_url="postgresql://dermq@postgres:5432/dermq",
        database_password_file=file,
        redis_url="redis://redis:6379/0",
        redis_password_file=file,
    )
    assert settings.database == "postgresql://dermq:p%2Fw%401@postgres:5432/dermq"
    assert settings.redis_url == "redis://:p%2Fw%401@redis:6379/0"


@pytest.mark.parametrize("url", ["", "redis://:known@redis:6379/0"])
def test_a_password_file_needs_a_url_without_a_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="without a password"):
        Settings(redis_url=url, redis_password_file=tmp_path / "password")


def test_a_password_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="missing cannot be read"):
        Settings(redis_url="redis://redis:6379/0", redis_password_file=tmp_path / "missing")


def test_trusted_proxies_are_addresses_and_networks() -> None:
    settings = Settings(trusted_proxies=" 10.0.0.5, 172.16.0.0/12 ,::1")
    assert [str(network) for network in settings.proxies] == ["10.0.0.5/32", "172.16.0.0/12", "::1/128"]
    with pytest.raises(pydantic.ValidationError, match=r"proxy\.example"):
        Settings(trusted_proxies="proxy.example")
