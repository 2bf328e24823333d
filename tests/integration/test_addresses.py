"""Which client sent a request, and under which names the web answers."""

from collections.abc import Callable
from typing import Any

import pytest
from apiflask import APIFlask
from flask import request
from flask.testing import FlaskClient

from tests import api
from web.http import addresses

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PROXY, CLIENT, LIAR = "10.0.0.5", "203.0.113.7", "198.51.100.9"


@pytest.fixture
def seen(make_app: Callable[..., APIFlask]) -> Callable[..., dict[str, str]]:
    """A function that sends a request behind the proxy 10.0.0.5 and tells what a view sees of it."""
    app = make_app(trusted_proxies=f"{PROXY}, fd00::/8", web_host="0.0.0.0")

    def tell() -> dict[str, str]:
        return {
            "client": addresses.find_client_address(request),
            "site": addresses.find_client_site(request),
            "scheme": request.scheme,
            "host": request.host,
            "script": request.script_root,
        }

    app.add_url_rule("/tell", view_func=tell)

    def send(peer: str, **headers: str) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = app.test_client().get("/tell", headers=named, environ_base={"REMOTE_ADDR": peer})
        assert answer.status_code == 200, answer.text
        return dict(answer.get_json())

    return send


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (CLIENT, CLIENT),
        (f"{LIAR}, {CLIENT}", CLIENT),
        (f"{LIAR}, {CLIENT}, {PROXY}", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"{LIAR}, unknown", PROXY),
        ("", PROXY),
        ("[2001:db8::1]:443", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
    ],
)
def test_a_configured_proxy_names_the_client(seen: Callable[..., dict[str, str]], forwarded: str, client: str) -> None:
    assert seen(PROXY, X_Forwarded_For=forwarded)["client"] == client
    behind_two = seen("fd00::1", X_Forwarded_For=f"{forwarded}, {PROXY}".removeprefix(", "))
    assert behind_two["client"] == client


def test_a_configured_proxy_names_the_scheme_and_the_host(seen: Callable[..., dict[str, str]]) -> None:
    told = seen(PROXY, X_Forwarded_For=CLIENT, X_Forwarded_Proto="https", X_Forwarded_Host="dermq.example")
    assert (told["scheme"], told["host"]) == ("https", "dermq.example")
    assert seen(PROXY, X_Forwarded_Proto="javascript")["scheme"] == "http"


def test_nobody_else_is_believed(seen: Callable[..., dict[str, str]]) -> None:
    lies = {"X_Forwarded_For": PROXY, "X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example"}
    told = seen(LIAR, **lies, X_Forwarded_Prefix="/evil", Forwarded=f"for={PROXY}", X_Script_Name="/evil")
    assert told == {"client": LIAR, "site": LIAR, "scheme": "http", "host": "localhost", "script": ""}


def test_no_proxy_changes_the_path(seen: Callable[..., dict[str, str]]) -> None:
    assert seen(PROXY, X_Forwarded_Prefix="/evil", X_Script_Name="/evil")["script"] == ""


def test_clients_of_one_ipv6_network_count_as_one(seen: Callable[..., dict[str, str]]) -> None:
    assert seen("2001:db8:1:2::7")["site"] == seen("2001:db8:1:2:9::8")["site"] == "2001:db8:1:2::/64"
    assert seen("::ffff:203.0.113.7")["site"] == CLIENT


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "a.localhost", "10.1.2.3"]
)
def test_on_this_machine_alone_the_web_answers_to_its_names_and_to_addresses(client: FlaskClient, host: str) -> None:
    assert client.get("/api/v1/batches", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "evil", "a b", "::1"])
def test_on_this_machine_alone_the_web_does_not_answer_to_other_names(client: FlaskClient, host: str) -> None:
    for path in ("/api/v1/batches", "/health/live"):
        problem = api.assert_problem(client.get(path, headers={"Host": host}), 400, "bad_request")
        assert "DERMQ_TRUSTED_HOSTS" in problem["detail"]
    page = client.get("/sign-in", headers={"Host": host})
    assert page.status_code == 400 and "DERMQ_TRUSTED_HOSTS" in page.text


@pytest.mark.parametrize(
    ("limits", "known", "unknown"),
    [
        ({"web_host": "0.0.0.0"}, ["lab-pc:8000", "dermq.clinic.example", "10.1.2.3"], []),
        (
            {"web_host": "0.0.0.0", "trusted_hosts": "dermq.example, .clinic.example"},
            ["dermq.example", "DERMQ.example.", "a.clinic.example", "localhost:1", "127.0.0.1"],
            ["clinic.example", "a.dermq.example", "evilclinic.example", "10.1.2.3"],
        ),
    ],
)
def test_the_operator_decides_which_names_the_web_has(
    make_app: Callable[..., APIFlask], limits: dict[str, Any], known: list[str], unknown: list[str]
) -> None:
    client = make_app(**limits).test_client()
    for host in known:
        assert client.get("/health/live", headers={"Host": host}).status_code == 200, host
    for host in unknown:
        assert client.get("/health/live", headers={"Host": host}).status_code == 400, host
