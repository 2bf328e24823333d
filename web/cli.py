"""What an operator does to labs and tokens: ``flask --app web.app lab …`` and ``flask --app web.app token …``."""

import contextlib
from collections.abc import Iterator
from datetime import datetime

import click
from flask import Flask
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import db, errors, labs
from dermq.models import Lab
from web import services

lab_commands = AppGroup("lab", help="Add and list labs.")
token_commands = AppGroup("token", help="Issue, list and revoke the access tokens of labs.")


def register(app: Flask) -> None:
    """Add the commands to ``app``."""
    app.cli.add_command(lab_commands)
    app.cli.add_command(token_commands)


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
        for lab in db.read(services.current().sessions, labs.every):
            click.echo(f"{lab.name}\t{lab.weight:g}\t{_time(lab.created_at)}")


@token_commands.command("issue")
@click.argument("lab")
@click.argument("name")
def issue_token(lab: str, name: str) -> None:
    """Issue a token called NAME to LAB and print its secret, this once."""

    def work(session: Session) -> str:
        return labs.issue_token(session, _find(session, lab), name)

    with _explained():
        click.echo(db.transact(services.current().sessions, work))
    click.echo("Keep it now: it is shown this once and only its hash is stored.", err=True)


@token_commands.command("list")
@click.argument("lab")
def list_tokens(lab: str) -> None:
    """List the tokens of LAB: id, name, since when, last use, whether revoked."""
    with _explained():
        found = db.read(services.current().sessions, lambda session: labs.tokens(session, _find(session, lab)))
    for token in found:
        used = _time(token.last_used_at) if token.last_used_at else "never used"
        state = f"revoked {_time(token.revoked_at)}" if token.revoked_at else "valid"
        click.echo(f"{token.id}\t{token.name}\t{_time(token.created_at)}\t{used}\t{state}")


@token_commands.command("revoke")
@click.argument("token_id", metavar="ID", type=int)
def revoke_token(token_id: int) -> None:
    """Revoke the token ID for ever; the sessions that stand on it end."""
    with _explained():
        token = db.transact(services.current().sessions, labs.revoke_token, token_id)
    click.echo(f"Revoked the token {token.id} ({token.name!r}).")


def _find(session: Session, name: str) -> Lab:
    lab = labs.find(session, name)
    if lab is None:
        known = ", ".join(repr(lab.name) for lab in labs.every(session)) or "none"
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
