"""The operator's commands ``lab …``, ``token …``, ``session …`` and ``audit`` of ``flask --app web.app``."""

import contextlib
import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import click
from flask import Flask
from flask.cli import AppGroup, with_appcontext
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import access_tokens, arrivals, browser_sessions, conservation, db, errors, labs, quotas
from dermq.conservation import Finding
from dermq.models import AccessToken, Lab
from dermq.principals import Scope
from web import services
from web.operating import quota_options

lab_commands = AppGroup("lab", help="Add, list, change, disable and enable labs.")
token_commands = AppGroup("token", help="Issue, list and revoke the access tokens of labs.")
session_commands = AppGroup("session", help="List and end the sessions of signed-in browsers.")


def register(app: Flask) -> None:
    """Add the commands to ``app``."""
    app.cli.add_command(lab_commands)
    app.cli.add_command(token_commands)
    app.cli.add_command(session_commands)
    app.cli.add_command(audit)


@lab_commands.command("add")
@click.argument("name")
@click.option("--weight", default=1.0, show_default=True, help="Share of the queue relative to other labs.")
@quota_options.add
def add_lab(name: str, weight: float, own: labs.Own) -> None:
    """Add a lab called NAME. Without a quota of its own, it has that of the settings."""
    with _report_errors():
        db.transact(services.get_current().sessions, labs.add, name, weight=weight, quotas=own)
    click.echo(f"Added the lab {name!r}. Issue a token: flask --app web.app token issue {name!r} TOKEN-NAME")


@lab_commands.command("set")
@click.argument("name")
@click.option("--weight", type=float, help="Share of the queue relative to other labs.")
@quota_options.add
def set_lab(name: str, weight: float | None, own: labs.Own) -> None:
    """Change the weight and the quotas of the lab called NAME; `default` lets a quota be that of the settings."""

    def work(session: Session) -> None:
        labs.change(session, _find(session, name), weight=weight, quotas=own)

    with _report_errors():
        db.transact(services.get_current().sessions, work)
    _show(name)


@lab_commands.command("show")
@click.argument("name")
def show_lab(name: str) -> None:
    """Show the quotas of the lab called NAME and what it uses of them."""
    _show(name)


def _show(name: str) -> None:
    here = services.get_current()

    def work(session: Session) -> tuple[Lab, quotas.Quotas, quotas.Use]:
        lab = _find(session, name)
        return lab, quotas.Quotas.of(lab, here.settings), quotas.measure(session, lab.id)

    with _report_errors():
        lab, most, use = db.read(here.sessions, work)
    click.echo(f"weight\t{lab.weight:g}")
    for quota, limit in asdict(most).items():
        used = asdict(use).get(quota)
        source = "own" if getattr(lab, f"max_{quota}") else "default"
        click.echo(f"{quota}\t{'-' if used is None else used}\t{limit}\t{source}")


@lab_commands.command("list")
def list_labs() -> None:
    """List every lab: name, weight, time of creation, whether enabled."""
    with _report_errors():
        for lab in db.read(services.get_current().sessions, labs.list_all):
            state = f"disabled {_format_time(lab.disabled_at)}" if lab.disabled_at else "enabled"
            click.echo(f"{lab.name}\t{lab.weight:g}\t{_format_time(lab.created_at)}\t{state}")


@lab_commands.command("disable")
@click.argument("name")
def disable_lab(name: str) -> None:
    """Keep the lab called NAME out until it is enabled again. Its waiting images stay and are not classified."""
    with _report_errors():
        db.transact(services.get_current().sessions, lambda session: labs.disable(session, _find(session, name)))
    click.echo(f"Disabled the lab {name!r}. Let it in again: flask --app web.app lab enable {name!r}")


@lab_commands.command("enable")
@click.argument("name")
def enable_lab(name: str) -> None:
    """Let the lab called NAME in again; its waiting images are classified."""
    with _report_errors():
        db.transact(services.get_current().sessions, lambda session: labs.enable(session, _find(session, name)))
    click.echo(f"Enabled the lab {name!r}.")


@token_commands.command("issue")
@click.argument("lab")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What the token may do; repeat it for several. Default: everything.",
)
@click.option("--expires-days", type=click.IntRange(min=1, max=36_500), help="Days until it expires. Default: never.")
def issue_token(lab: str, name: str, scopes: tuple[str, ...], expires_days: int | None) -> None:
    """Issue a token called NAME to LAB and print its secret, which is never shown again."""
    chosen = [Scope(scope) for scope in scopes] or list(Scope)
    until = expires_days and datetime.now(UTC) + timedelta(days=expires_days)

    def work(session: Session) -> str:
        return access_tokens.issue(session, _find(session, lab), name, scopes=chosen, expires_at=until or None)

    with _report_errors():
        click.echo(db.transact(services.get_current().sessions, work))
    click.echo("Save this token now. It is not shown again, because only its hash is stored.", err=True)


@token_commands.command("list")
@click.argument("lab")
def list_tokens(lab: str) -> None:
    """List the tokens of LAB: id, name, time of creation, last use, scopes, whether valid."""
    with _report_errors():
        found = db.read(
            services.get_current().sessions, lambda session: access_tokens.list_all(session, _find(session, lab).id)
        )
    for token in found:
        used = _format_time(token.last_used_at) if token.last_used_at else "never used"
        scopes = ",".join(token.scopes)
        created = _format_time(token.created_at)
        click.echo(f"{token.id}\t{token.name}\t{created}\t{used}\t{scopes}\t{_describe_validity(token)}")


@token_commands.command("revoke")
@click.argument("token_id", metavar="ID", type=int)
def revoke_token(token_id: int) -> None:
    """Revoke the token with this ID for ever. Browser sessions that were opened with it end."""
    with _report_errors():
        token = db.transact(services.get_current().sessions, access_tokens.revoke, token_id)
    click.echo(f"Revoked the token {token.id} ({token.name!r}).")


@session_commands.command("list")
@click.argument("lab")
def list_sessions(lab: str) -> None:
    """List the browsers that are signed in to LAB: id, token, sign-in, last use, end, address, browser."""
    here = services.get_current()
    with _report_errors():
        found = db.read(
            here.sessions,
            lambda session: browser_sessions.list_all(session, _find(session, lab).id, here.settings),
        )
    for one in found:
        times = "\t".join(map(_format_time, (one.created_at, one.last_used_at, one.ends_at)))
        click.echo(f"{one.id}\t{one.token.name}\t{times}\t{one.address}\t{arrivals.escape_controls(one.browser)}")


@session_commands.command("end")
@click.argument("session_id", metavar="ID", type=int)
def end_session(session_id: int) -> None:
    """Sign out the browser whose session has this ID."""
    with _report_errors():
        db.transact(services.get_current().sessions, browser_sessions.end, session_id)
    click.echo(f"Ended the session {session_id}.")


@session_commands.command("end-all")
@click.argument("lab")
def end_sessions(lab: str) -> None:
    """Sign out every browser of LAB."""
    with _report_errors():
        ended = db.transact(
            services.get_current().sessions,
            lambda session: browser_sessions.end_all(session, _find(session, lab).id),
        )
    click.echo(f"Ended {ended} sessions of the lab {lab!r}.")


@click.command("audit")
@click.option("--batch", "only", type=click.UUID, metavar="ID", help="Audit this batch alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@with_appcontext
def audit(only: uuid.UUID | None, as_json: bool) -> None:
    """Check that no image is lost, counted twice or predicted twice; exit with 1 if any is.

    The check may run while dermq runs, and changes nothing.
    """
    with _report_errors():
        batches, images, findings = _audit(only)
    if as_json:
        click.echo(json.dumps({"batches": batches, "images": images, "findings": findings}))
    else:
        for finding in findings:
            click.echo(f"{finding['batch'] or 'no batch'}\t{finding['breach']}\t{finding['detail']}")
        breached = len({finding["batch"] for finding in findings} - {None})
        result = f"{len(findings)} findings in {breached} batches" if findings else "all conserved"
        click.echo(f"{batches} batches, {images} images: {result}.")
    sys.exit(1 if findings else 0)


def _audit(only: uuid.UUID | None) -> tuple[int, int, list[dict[str, str | None]]]:
    """Return the number of batches and of images that were checked, and the findings."""
    here = services.get_current()
    ids = _list_batch_ids(here.sessions)
    if only is not None and only not in ids:
        raise errors.NotFound("no_batch", f"There is no batch {only}.")
    ids = ids if only is None else [only]
    images, findings = 0, []
    with click.progressbar(ids, label="Auditing", file=sys.stderr) as bar:
        for batch_id in bar:
            found = conservation.audit(here.sessions, here.blobs, batch_id)
            images += found.images
            findings += [_format_finding(finding, batch_id) for finding in found.findings]
    if only is None:
        for look in (conservation.find_stale_claims, conservation.find_wrong_uses):
            findings += [_format_finding(finding) for finding in db.read(here.sessions, look)]
    return len(ids), images, findings


def _list_batch_ids(sessions: db.Sessions) -> list[uuid.UUID]:
    found: list[uuid.UUID] = []
    while page := db.read(sessions, conservation.list_next_batches, found[-1] if found else uuid.UUID(int=0), 1_000):
        found += page
    return found


def _format_finding(finding: Finding, batch_id: uuid.UUID | None = None) -> dict[str, str | None]:
    batch = None if batch_id is None else str(batch_id)
    return {"batch": batch, "breach": finding.breach.value, "detail": finding.detail}


def _find(session: Session, name: str) -> Lab:
    lab = labs.find(session, name)
    if lab is None:
        known = ", ".join(repr(lab.name) for lab in labs.list_all(session)) or "none"
        raise errors.NotFound("no_lab", f"There is no lab called {name!r}. Known: {known}.")
    return lab


@contextlib.contextmanager
def _report_errors() -> Iterator[None]:
    """Print an error to the operator as a sentence, and exit with 1."""
    try:
        yield
    except errors.DermqError as err:
        raise click.ClickException(err.detail) from err
    except SQLAlchemyError as err:
        raise click.ClickException(
            f"The database cannot be used. Has `alembic upgrade head` been run? {getattr(err, 'orig', err)}"
        ) from err


def _describe_validity(token: AccessToken) -> str:
    if token.revoked_at is not None:
        return f"revoked {_format_time(token.revoked_at)}"
    if token.expires_at is None:
        return "valid"
    word = "expired" if token.expires_at <= datetime.now(UTC) else "valid until"
    return f"{word} {_format_time(token.expires_at)}"


def _format_time(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")
