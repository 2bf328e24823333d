"""The operator's commands ``lab …``, ``token …`` and ``audit`` of ``flask --app web.app``."""

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
    with _report_errors():
        db.transact(
            services.get_current().sessions, labs.add, name, weight=weight, max_waiting_images=max_waiting_images
        )
    click.echo(f"Added the lab {name!r}. Issue a token: flask --app web.app token issue {name!r} TOKEN-NAME")


@lab_commands.command("list")
def list_labs() -> None:
    """List every lab: name, weight, time of creation."""
    with _report_errors():
        for lab in db.read(services.get_current().sessions, labs.list_all):
            click.echo(f"{lab.name}\t{lab.weight:g}\t{_format_time(lab.created_at)}")


@token_commands.command("issue")
@click.argument("lab")
@click.argument("name")
def issue_token(lab: str, name: str) -> None:
    """Issue a token called NAME to LAB and print its secret, which is never shown again."""

    def work(session: Session) -> str:
        return access_tokens.issue(session, _find(session, lab), name)

    with _report_errors():
        click.echo(db.transact(services.get_current().sessions, work))
    click.echo("Save this token now. It is not shown again, because only its hash is stored.", err=True)


@token_commands.command("list")
@click.argument("lab")
def list_tokens(lab: str) -> None:
    """List the tokens of LAB: id, name, time of creation, last use, whether revoked."""
    with _report_errors():
        found = db.read(
            services.get_current().sessions, lambda session: access_tokens.list_all(session, _find(session, lab))
        )
    for token in found:
        used = _format_time(token.last_used_at) if token.last_used_at else "never used"
        state = f"revoked {_format_time(token.revoked_at)}" if token.revoked_at else "valid"
        click.echo(f"{token.id}\t{token.name}\t{_format_time(token.created_at)}\t{used}\t{state}")


@token_commands.command("revoke")
@click.argument("token_id", metavar="ID", type=int)
def revoke_token(token_id: int) -> None:
    """Revoke the token with this ID for ever. Browser sessions that were opened with it end."""
    with _report_errors():
        token = db.transact(services.get_current().sessions, access_tokens.revoke, token_id)
    click.echo(f"Revoked the token {token.id} ({token.name!r}).")


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
        findings += [_format_finding(finding) for finding in db.read(here.sessions, conservation.find_stale_claims)]
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


def _format_time(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")
