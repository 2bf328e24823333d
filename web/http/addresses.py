"""Which client sent a request, and under which name it asked for this web.

A client may write any header. So headers that a proxy adds (``X-Forwarded-For``, ``-Proto`` and ``-Host``) count only
if the connection comes from an address that the operator has configured as a proxy.
"""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Request, request
from werkzeug.exceptions import BadRequest
from werkzeug.middleware.proxy_fix import ProxyFix

from dermq.settings import Network, Settings, split

_FORWARDED = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_PROTOCOL",
    "HTTP_X_FORWARDED_SSL",
    "HTTP_X_REAL_IP",
    "HTTP_X_SCRIPT_NAME",
)
_IPV6_SITE_BITS = 64
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]


class UnknownHost(BadRequest):
    """Raised when a request asks for a name that this web does not have."""


def register(app: Flask, settings: Settings) -> None:
    """Let ``app`` believe the configured proxies and nobody else, and answer only under its own names."""
    app.wsgi_app = _Forwarded(app.wsgi_app, settings.proxies)  # type: ignore[method-assign]
    app.before_request(lambda: _check_host(settings))


def find_client_address(request: Request) -> str:
    """Return the IP address of the client, as the configured proxies name it; empty for a Unix socket."""
    return _simplify(request.remote_addr or "")


def find_client_site(request: Request) -> str:
    """Return what to count a client by: its IPv4 address, or the /64 network of its IPv6 address.

    One IPv6 client may use every address of its /64, so counting by address would not limit it.
    """
    address = find_client_address(request)
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, _IPV6_SITE_BITS), strict=False))


def answers_to(settings: Settings, name: str) -> bool:
    """Return whether the web has the host ``name``, which is in lower case and without a port.

    Without DERMQ_TRUSTED_HOSTS, an address is always answered: DNS rebinding needs a name.
    """
    if name in _OWN_NAMES:
        return True
    names = [part.lower() for part in split(settings.trusted_hosts)]
    if names:
        return any(name == part or (part.startswith(".") and name.endswith(part)) for part in names)
    return bool(name) and (not _is_loopback(settings.web_host) or name.endswith(".localhost") or _is_address(name))


class _Forwarded:
    """WSGI middleware: applies the headers of configured proxies, and removes those of everybody else."""

    def __init__(self, app: WSGI, proxies: tuple[Network, ...]) -> None:
        self._app = app
        self._proxies = proxies
        # The client's address is not left to ProxyFix, which counts proxies and does not look at who they are.
        self._behind_proxy = ProxyFix(app, x_for=0, x_proto=1, x_host=1)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._is_proxy(environ.get("REMOTE_ADDR", "")):
            environ["REMOTE_ADDR"] = self._find_client(environ)
            if environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip() not in ("http", "https"):
                environ.pop("HTTP_X_FORWARDED_PROTO", None)
            return self._behind_proxy(environ, start_response)
        for name in _FORWARDED:
            environ.pop(name, None)
        return self._app(environ, start_response)

    def _find_client(self, environ: dict[str, Any]) -> str:
        """Return the last address of X-Forwarded-For that is no proxy; what stands before it is only the client's word.

        A value that is no address ends the search, and the proxy that passed it on counts as the client.
        """
        found = str(environ["REMOTE_ADDR"])
        for address in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
            stated = _simplify(address.strip())
            if not _is_address(stated):
                break
            found = stated
            if not self._is_proxy(stated):
                break
        return found

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies or not _is_address(plain := _simplify(address)):
            return False
        return any(ipaddress.ip_address(plain) in network for network in self._proxies)


def _check_host(settings: Settings) -> None:
    """Raise UnknownHost unless the Host header has a name of this web.

    Otherwise a page of a stranger could let its own name lead to this machine (DNS rebinding) and so read what a
    browser on this machine may read.
    """
    name = _read_name(request.host)
    if not answers_to(settings, name):
        raise UnknownHost(
            f"This web does not answer to the host name {name[:100]!r}. Its operator can add the name to "
            "DERMQ_TRUSTED_HOSTS."
        )


def _read_name(host: str) -> str:
    """Return a Host header without its port and without the brackets of IPv6, in lower case."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def _is_loopback(host: str) -> bool:
    return host in _OWN_NAMES or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _simplify(address: str) -> str:
    """Return an address without port, brackets and zone, and an IPv4 address that is mapped to IPv6 as IPv4."""
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    if not _is_address(address):
        return address
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found)))
    return str(found)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
