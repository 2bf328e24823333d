"""Every setting, in one frozen object built once per program and passed on. Prefix ``DERMQ_``.

``docs/settings.md`` is written from this file by ``make docs``.
"""

import ipaddress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds ``bundles/`` and ``migrations/``."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings(BaseSettings):
    """The settings of an installation. Each is read from the environment variable ``DERMQ_`` and the field's name."""

    model_config = SettingsConfigDict(env_prefix="DERMQ_", frozen=True, use_attribute_docstrings=True)

    var_dir: Path = ROOT / "var"
    """Folder of everything that is kept on this machine: the session key and, by default, database and blobs."""
    database_url: str = ""
    """SQLAlchemy URL of the database; empty means SQLite under `var_dir`."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """Redis for wake-ups: `redis://host:port/db` or `unix:///path/to/socket`. If it is lost, work is only delayed."""
    database_password_file: Path | None = None
    """File with the password of `database_url`, which then contains none, so that no environment holds the password."""
    redis_password_file: Path | None = None
    """File with the password of `redis_url`, used in the same way."""
    blobs_dir: Path | None = None
    """Folder of the image files; unset means `blobs` under `var_dir`."""
    bundles_dir: Path = ROOT / "bundles"
    """Folder of the bundles; its file `current` names the one that new batches use."""

    port: int = Field(8000, ge=1, le=65535)
    """Port of the web on 127.0.0.1 when started by `make run`."""
    web_host: str = "127.0.0.1"
    """Address the web listens on."""
    metrics_token_file: Path | None = None
    """File with the token that a scrape of `/metrics` must send; unset means `metrics-token` under `var_dir`. The file
    is made when it is missing."""
    trusted_hosts: str = ""
    """Names under which the web answers, with commas between; `.example.org` stands for every name below it. Names of
    this machine itself, such as `localhost`, are always answered. Empty means: all names if the web listens for other
    machines, else only `localhost` and addresses."""
    trusted_proxies: str = ""
    """Addresses or networks of proxies before the web, with commas between, such as `10.0.0.5, 172.16.0.0/12`. Only
    their `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are believed."""
    web_threads: int = Field(16, ge=2)
    """Threads of the web process. At most half of them receive uploads at one time, and a lab has at most half of these
    while another lab wants one."""
    web_connections: int = Field(4096, ge=16)
    """Connections of clients that the web holds open; beyond that, those that have waited longest are closed. The
    limit on open files is raised as far as the system allows, and half of it is the most."""
    least_bytes_per_second: int = Field(1_000, ge=1)
    """A client that sends an upload, or takes an answer, at a lower rate is disconnected."""
    least_rate_seconds: float = Field(30.0, gt=0)
    """The time over which the rate of a client is measured."""
    upload_seconds: float = Field(21_600.0, gt=0)
    """An upload that takes longer is ended (6 hours)."""
    secure_cookies: bool = False
    """Send the session cookie over HTTPS only; set it wherever the web is behind TLS."""
    session_days: int = Field(14, ge=1)
    """Days until a session of a browser ends, however much it is used."""
    session_idle_hours: int = Field(24, ge=1)
    """Hours without a request after which a session of a browser ends."""

    lab_waiting_images: int = Field(100_000, ge=1)
    """Images of a lab that may wait at one time. `lab set` gives one lab another value of this and the next quotas."""
    lab_kept_bytes: int = Field(200_000_000_000, ge=1)
    """Bytes that all files of a lab may have together (200 GB)."""
    lab_open_batches: int = Field(200, ge=1)
    """Batches of a lab that may be open, which means not sealed, at one time."""
    lab_requests_per_minute: int = Field(200_000, ge=1)
    """Requests that a lab may make in a minute."""

    max_images_per_batch: int = Field(20_000, ge=1)
    """Images a batch may hold."""
    max_image_bytes: int = Field(32_000_000, ge=1)
    """Bytes an image file may have (32 MB)."""
    max_image_pixels: int = Field(50_000_000, ge=1)
    """Pixels an image may have (50 megapixels), checked before its pixels are decoded."""
    max_image_side: int = Field(20_000, ge=1, le=65_535)
    """Pixels a side of an image may have, checked before its pixels are decoded."""
    max_archive_bytes: int = Field(4_000_000_000, ge=1)
    """Bytes a ZIP archive may have (4 GB)."""
    max_archive_unpacked_bytes: int = Field(64_000_000_000, ge=1)
    """Bytes all entries of one archive may have together when unpacked; entries beyond that are refused."""
    max_files_per_request: int = Field(1_000, ge=1)
    """Files one multipart request may carry; send larger sets as an archive or file by file."""
    idle_seal_seconds: int = Field(3600, ge=1)
    """A batch left open and idle this long seals itself."""
    retention_days: int = Field(0, ge=0)
    """Days after which a finished or cancelled batch is deleted with its images; 0 keeps batches."""

    engine: str = "auto"
    """Engine of a classify worker: `onnx`, `keras`, or `auto` (Keras where TensorFlow sees a GPU, else ONNX)."""
    claim_images: int = Field(64, ge=4)
    """Images one claim takes at most; a lab's turn is a quarter of it."""
    step_images: int = Field(16, ge=1)
    """Images the engine predicts in one step."""
    decoders: int = Field(2, ge=2)
    """Decoders of a worker process: programs that decode images while the engine predicts. Slow images hold at most
    half of them while others wait."""
    decode_seconds: float = Field(20.0, gt=0)
    """Seconds a decoder may take for one image before it is killed. The second time, the image fails as
    `decode_timeout`. `drain_seconds` must be more than twice as long, so that each drain brings images to their end."""
    decoder_memory_bytes: int = Field(1_500_000_000, ge=500_000_000)
    """Bytes of address space a decoder may use (1.5 GB); an image that needs more fails as `out_of_memory`."""
    jpeg_draft: bool = False
    """Decode large JPEG files at a fraction of their size where that saves work."""
    lease_seconds: float = Field(60.0, gt=0)
    """A claim not renewed for this long is lost and its images are queued again."""
    drain_seconds: float = Field(60.0, gt=0)
    """A worker's task ends after this long and sends a wake-up for the next, so that no task runs for ever."""
    reaper_seconds: float = Field(15.0, gt=0)
    """Pause between two rounds of the reaper."""
    worker_seen_seconds: float = Field(5.0, gt=0)
    """Time between two heartbeats of a worker; a worker that is silent for six times as long counts as gone."""
    stalled_seconds: float = Field(45.0, gt=0)
    """A worker that makes no progress for this long while work waits ends, to be started again. It must be more than
    `reaper_seconds` and `worker_seen_seconds` together."""
    log_level: str = "INFO"
    """Messages of this level and of more severe ones are logged."""
    sql_echo: bool = False
    """Log every SQL statement with its parameters, which hold file names. For debugging, not for production."""

    @model_validator(mode="before")
    @classmethod
    def _read_passwords(cls, given: dict[str, Any]) -> dict[str, Any]:
        urls = {}
        for name in ("database", "redis"):
            if file := given.get(f"{name}_password_file"):
                urls[f"{name}_url"] = _add_password(str(given.get(f"{name}_url", "")), Path(file))
        return given | urls

    @model_validator(mode="after")
    def _a_drain_ends_slow_images(self) -> Self:
        if self.drain_seconds <= 2 * self.decode_seconds:
            raise ValueError(
                f"drain_seconds is {self.drain_seconds:g}; more than twice decode_seconds, "
                f"{2 * self.decode_seconds:g}, is accepted."
            )
        return self

    @model_validator(mode="after")
    def _idle_workers_are_woken_in_time(self) -> Self:
        least = self.reaper_seconds + self.worker_seen_seconds
        if self.stalled_seconds <= least:
            raise ValueError(f"stalled_seconds is {self.stalled_seconds:g}; more than {least:g} is accepted.")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, given: str) -> str:
        for part in split(given):
            ipaddress.ip_network(part)  # its ValueError says what is wrong
        return given

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The networks of ``trusted_proxies``."""
        return tuple(map(ipaddress.ip_network, split(self.trusted_proxies)))

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.var_dir.resolve() / 'dermq.sqlite3'}"

    @property
    def worker_gone_seconds(self) -> float:
        return 6 * self.worker_seen_seconds

    @property
    def blobs(self) -> Path:
        return self.blobs_dir or self.var_dir / "blobs"


def split(text: str) -> list[str]:
    """Return the parts of a setting that is a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _add_password(url: str, file: Path) -> str:
    """Put the password that ``file`` holds into ``url``."""
    parts = urlsplit(url)
    if not parts.hostname or parts.password is not None:
        raise ValueError("A password file needs a URL with a host and without a password.")
    try:
        password = file.read_text(encoding="utf-8").strip()
    except OSError as err:
        raise ValueError(f"The password file {file} cannot be read: {err.strerror}.") from err
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl()
