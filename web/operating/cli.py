"""What an operator does with ``flask --app web.app``: ``lab …``, ``token …`` and ``audit``."""

import contextlib
import json
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime

import click
from flask import Flask
from flask.cli import AppGroup, with_appcontext
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import access_tokens, conservation, db, errors, labs
from dermq.conservation import Finding
from dermq.models import Lab
from web import services

lab_commands = AppGroup("lab", help="Add and list labs.")
token_commands = AppGroup("token", help="Issue, list and revoke the access tokens of labs.")


def register(app: Flask) -> None:
    """Add the commands to ``app``."""
    app.cli.add_command(lab_commands)
    app.cli.add_command(token_commands)
    app.cli.add_command(audit)


@lab_commands.command("add")
@click.argument("name")
@click.option("--weight", default=1.0, show_default=True, help="Share of the queue relative to other labs.")
@click.option("--max-waiting-images", type=click.IntRange(min=1), help="Images that may wait at one time.")
def add_lab(name: str, weight: float, max_waiting_images: int | None) -> None:
    """Add a lab called NAME."""
    with _explained():
        db.transact(services.current().sessions, labs.add, name, weight=weight, max_waiting_images=max_waiting_images)
    click.echo(f"Added the lab {name!r}. Issue a token: flask --app web.app token issue {name!r} TOKEN-NAME")


@lab_commands.command("list")
def list_labs() -> None:
    """List every lab: name, weight, since when."""
    with _explained():
        for lab in db.read(services.current().sessions, labs.list_all):
            click.echo(f"{lab.name}\t{lab.weight:g}\t{_time(lab.created_at)}")


@token_commands.command("issue")
@click.argument("lab")
@click.argument("name")
def issue_token(lab: str, name: str) -> None:
    """Issue a token called NAME to LAB and print its secret, this once."""

    def work(session: Session) -> str:
        return access_tokens.issue(session, _find(session, lab), name)

    with _explained():
        click.echo(db.transact(services.current().sessions, work))
    click.echo("Keep it now: it is shown this once and only its hash is stored.", err=True)


@token_commands.command("list")
@click.argument("lab")
def list_tokens(lab: str) -> None:
    """List the tokens of LAB: id, name, since when, last use, whether revoked."""
    with _explained():
        found = db.read(
            services.current().sessions, lambda session: access_tokens.list_all(session, _find(session, lab))
        )
    for token in found:
        used = _time(token.last_used_at) if token.last_used_at else "never used"
        state = f"revoked {_time(token.revoked_at)}" if token.revoked_at else "valid"
        click.echo(f"{token.id}\t{token.name}\t{_time(token.created_at)}\t{used}\t{state}")


@token_commands.command("revoke")
@click.argument("token_id", metavar="ID", type=int)
def revoke_token(token_id: int) -> None:
    """Revoke the token ID for ever; the sessions that stand on it end."""
    with _explained():
        token = db.transact(services.current().sessions, access_tokens.revoke, token_id)
    click.echo(f"Revoked the token {token.id} ({token.name!r}).")


@click.command("audit")
@click.option("--batch", "only", type=click.UUID, metavar="ID", help="Audit this batch alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@with_appcontext
def audit(only: uuid.UUID | None, as_json: bool) -> None:
    """Prove that no image is lost, counted twice or predicted twice; exit code 1 when that does not hold.

    Reads while dermq runs, and changes nothing.
    """
    with _explained():
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
    """How many batches and images were audited, and what was found."""
    here = services.current()
    ids = _every_batch(here.sessions)
    if only is not None and only not in ids:
        raise errors.NotFound("no_batch", f"There is no batch {only}.")
    ids = ids if only is None else [only]
    images, findings = 0, []
    with click.progressbar(ids, label="Auditing", file=sys.stderr) as bar:
        for batch_id in bar:
            found = conservation.audit(here.sessions, here.blobs, batch_id)
            images += found.images
            findings += [_shown(finding, batch_id) for finding in found.findings]
    if only is None:
        findings += [_shown(finding) for finding in db.read(here.sessions, conservation.stale_claims)]
    return len(ids), images, findings


def _every_batch(sessions: db.Sessions) -> list[uuid.UUID]:
    found: list[uuid.UUID] = []
    while page := db.read(sessions, conservation.next_batches, found[-1] if found else uuid.UUID(int=0), 1_000):
        found += page
    return found


def _shown(finding: Finding, batch_id: uuid.UUID | None = None) -> dict[str, str | None]:
    batch = None if batch_id is None else str(batch_id)
    return {"batch": batch, "breach": finding.breach.value, "detail": finding.detail}


def _find(session: Session, name: str) -> Lab:
    lab = labs.find(session, name)
    if lab is None:
        known = ", ".join(repr(lab.name) for lab in labs.list_all(session)) or "none"
        raise errors.NotFound("no_lab", f"There is no lab called {name!r}. Known: {known}.")
    return lab


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Tell an operator what was wrong in a sentence, with exit code 1."""
    try:
        yield
    except errors.DermqError as err:
        raise click.ClickException(err.detail) from err
    except SQLAlchemyError as err:
        raise click.ClickException(
            f"The database cannot be used. Has `alembic upgrade head` been run? {getattr(err, 'orig', err)}"
        ) from err


def _time(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")
