"""The lab itself: its quotas, sessions and access tokens. The operator issues tokens; a lab can end what it has."""

from dataclasses import asdict
from functools import partial

from dermq import access_tokens, browser_sessions, db, quotas
from dermq.principals import Scope
from web import services
from web.access import auth
from web.api import blueprints, documents, lab_schemas

blueprint = blueprints.make("lab", "Your lab: its quotas, who is signed in, and its access tokens.")


@blueprint.get("/lab")
@blueprint.output(lab_schemas.Lab)
@blueprint.doc(responses=documents.describe_responses())
@auth.require(Scope.READ)
def get_lab() -> lab_schemas.Lab:
    """Get your lab: what this token may do, and the quotas of the lab with what is used."""
    by = auth.get_principal()
    return lab_schemas.Lab(name=by.lab_name, scopes=sorted(by.scopes), quotas=read_quotas())


def read_quotas() -> lab_schemas.Quotas:
    """Return the quotas of the lab that sends this request, and what it uses of them."""
    here, lab_id = services.get_current(), auth.get_principal().lab_id
    most, use = db.read(
        here.sessions,
        lambda session: (quotas.find(session, lab_id, here.settings), quotas.measure(session, lab_id)),
    )
    used = {**asdict(use), "requests_per_minute": here.requests.count(lab_id)}
    shown = {name: lab_schemas.Quota(limit=limit, used=used[name]) for name, limit in asdict(most).items()}
    return lab_schemas.Quotas(**shown)


@blueprint.get("/lab/sessions")
@blueprint.output(lab_schemas.SessionList)
@blueprint.doc(responses=documents.describe_responses())
@auth.require(Scope.MANAGE)
def get_sessions() -> lab_schemas.SessionList:
    """List the browsers that are signed in to your lab."""
    here, by = services.get_current(), auth.get_principal()
    rows = db.read(here.sessions, browser_sessions.list_all, by.lab_id, here.settings)
    return lab_schemas.SessionList(sessions=[lab_schemas.Session.of(row, by.session_id) for row in rows])


@blueprint.delete("/lab/sessions")
@blueprint.output({}, status_code=204)
@blueprint.doc(responses=documents.describe_responses())
@auth.require(Scope.MANAGE)
def end_sessions() -> str:
    """Sign out every browser of your lab, except the one that asks."""
    by = auth.get_principal()
    db.transact(services.get_current().sessions, partial(browser_sessions.end_all, by=by), by.lab_id)
    return ""


@blueprint.delete("/lab/sessions/<int:session_id>")
@blueprint.output({}, status_code=204)
@blueprint.doc(responses=documents.describe_responses(404))
@auth.require(Scope.MANAGE)
def end_session(session_id: int) -> str:
    """Sign out one browser."""
    db.transact(services.get_current().sessions, partial(browser_sessions.end, by=auth.get_principal()), session_id)
    return ""


@blueprint.get("/lab/tokens")
@blueprint.output(lab_schemas.AccessTokenList)
@blueprint.doc(responses=documents.describe_responses())
@auth.require(Scope.MANAGE)
def get_tokens() -> lab_schemas.AccessTokenList:
    """List the access tokens of your lab, with their scopes and last use."""
    rows = db.read(services.get_current().sessions, access_tokens.list_all, auth.get_principal().lab_id)
    return lab_schemas.AccessTokenList(tokens=[lab_schemas.AccessToken.of(row) for row in rows])


@blueprint.delete("/lab/tokens/<int:token_id>")
@blueprint.output({}, status_code=204)
@blueprint.doc(responses=documents.describe_responses(404))
@auth.require(Scope.MANAGE)
def revoke_token(token_id: int) -> str:
    """Revoke an access token for ever. The browsers that signed in with it are signed out."""
    db.transact(services.get_current().sessions, partial(access_tokens.revoke, by=auth.get_principal()), token_id)
    return ""
