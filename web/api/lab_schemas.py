"""The schemas of a lab's sessions and access tokens in answers of the API."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from dermq import models
from dermq.principals import Scope
from web.api.schemas import Shape

_LAB: dict[str, Any] = {
    "name": "clinic",
    "scopes": ["read", "submit"],
    "quotas": {
        "waiting_images": {"limit": 100_000, "used": 3_100},
        "kept_bytes": {"limit": 200_000_000_000, "used": 1_520_000_000},
        "open_batches": {"limit": 200, "used": 1},
        "requests_per_minute": {"limit": 200_000, "used": 90},
    },
}
_SESSION: dict[str, Any] = {
    "id": 7,
    "token": "laptop",
    "browser": "Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0",
    "address": "192.0.2.17",
    "current": True,
    "created_at": "2026-11-28T09:00:00Z",
    "last_used_at": "2026-11-28T11:30:00Z",
    "ends_at": "2026-12-12T09:00:00Z",
}
_TOKEN: dict[str, Any] = {
    "id": 3,
    "name": "laptop",
    "scopes": ["read", "submit"],
    "created_at": "2026-11-01T08:00:00Z",
    "expires_at": "2027-11-01T08:00:00Z",
    "last_used_at": "2026-11-28T11:30:00Z",
    "revoked_at": None,
}


class Quota(Shape):
    """A quota, and how much of it is used."""

    limit: int
    used: int


class Quotas(Shape):
    """What the lab may use at one time, and what it uses."""

    waiting_images: Quota = Field(description="Images that wait to be classified. Over it: 429, with Retry-After.")
    kept_bytes: Quota = Field(description="Bytes of all its files; equal files of a batch count once. Over it: 507.")
    open_batches: Quota = Field(description="Batches that are not sealed. Over it: 403.")
    requests_per_minute: Quota = Field(description="Over it: 429, with Retry-After.")


class Lab(Shape):
    """The lab of the caller, what the caller may do, and the lab's quotas."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LAB]})

    name: str
    scopes: list[Scope] = Field(description="What the access token or the session of this call may do.")
    quotas: Quotas


class Session(Shape):
    """A browser that is signed in."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SESSION]})

    id: int
    token: str = Field(description="Name of the access token that was used to sign in.")
    browser: str = Field(description="What the browser called itself when it signed in.")
    address: str = Field(description="The address from which it signed in.")
    current: bool = Field(description="Whether this call was made with this session.")
    created_at: datetime
    last_used_at: datetime = Field(description="To the minute; pages that refresh themselves do not count.")
    ends_at: datetime = Field(description="When it ends at the latest; without requests it ends earlier.")

    @classmethod
    def of(cls, row: models.BrowserSession, current_id: int | None) -> "Session":
        """Return the schema of a session that was loaded with its token."""
        own = {name: getattr(row, name) for name in ("id", "browser", "address", "created_at", "last_used_at")}
        return cls(**own, token=row.token.name, current=row.id == current_id, ends_at=row.ends_at)


class SessionList(Shape):
    """The lab's sessions, last used first."""

    sessions: list[Session]


class AccessToken(Shape):
    """An access token, without its secret, which nobody can read again."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TOKEN]})

    id: int
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None = Field(description="Null when it does not expire.")
    last_used_at: datetime | None = Field(description="To the minute; null when it was never used.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: models.AccessToken) -> "AccessToken":
        return cls.model_validate(row, from_attributes=True)


class AccessTokenList(Shape):
    """The lab's access tokens, oldest first, with those that have expired or were revoked."""

    tokens: list[AccessToken]
