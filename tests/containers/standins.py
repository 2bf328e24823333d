"""Images that stand in for those of a registry, made of Debian's packages: no registry is asked.

They take what the compose file gives to the official images: the same variables, arguments, users and folders. What an
official image does beyond that is not tested by them.
"""

import shutil
import subprocess
from pathlib import Path

_USERS = {"postgres": (70, 70), "redis": (999, 1000)}
"""User and group ids of the official Alpine images; data in a volume belongs to them."""

_POSTGRES = """\
#!/bin/sh
set -eu
data=/var/lib/postgresql/data
bin=$(echo /usr/lib/postgresql/*/bin)
if [ "$(id -u)" = 0 ]; then
  chown 70:70 $data && chmod 700 $data && install -d -o 70 -g 70 /var/run/postgresql
  exec setpriv --reuid=70 --regid=70 --clear-groups "$0" "$@"
fi
[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
if [ ! -s $data/PG_VERSION ]; then
  printf %s "$POSTGRES_PASSWORD" >/tmp/password
  $bin/initdb -D $data --username="$POSTGRES_USER" --pwfile=/tmp/password \\
    --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=trust
  rm /tmp/password
  echo "host all all all scram-sha-256" >>$data/pg_hba.conf
  $bin/pg_ctl -D $data -w -o "-c listen_addresses=''" start
  $bin/createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  $bin/pg_ctl -D $data -m fast -w stop
fi
exec $bin/postgres -D $data -c listen_addresses='*'
"""

_REDIS = """\
#!/bin/sh
[ "$(id -u)" != 0 ] || exec setpriv --reuid=999 --regid=1000 --clear-groups "$@"
exec "$@"
"""


def make_python(tarball: Path) -> None:
    """What the Dockerfile builds on: Debian's Python, called ``python`` as well."""
    _debian(tarball, ["python3", "python3-venv", "ca-certificates"], ['ln -s python3 "$1/usr/bin/python"'])


def make_servers(tarball: Path) -> None:
    """PostgreSQL, Redis and Caddy in one root file system."""
    hooks = []
    for name, (user, group) in _USERS.items():
        hooks += [f'chroot "$1" groupmod -o -g {group} {name}', f'chroot "$1" usermod -o -u {user} {name}']
    folder = tarball.parent / "entrypoints"
    folder.mkdir(exist_ok=True)
    for name, text in (("postgres", _POSTGRES), ("redis", _REDIS)):
        (folder / name).write_text(text)
        hooks += [f'install -m 755 "{folder / name}" "$1/usr/local/bin/{name}-entrypoint"']
    hooks += [
        'rm -rf "$1/var/lib/postgresql" "$1/data"',
        'install -d -o 70 -g 70 -m 1777 "$1/var/lib/postgresql/data"',
        'install -d "$1/data"',
        'chroot "$1" setcap cap_net_bind_service=+ep /usr/bin/caddy',  # as in the official image
    ]
    _debian(tarball, ["postgresql", "redis-server", "caddy", "ca-certificates", "libcap2-bin"], hooks)


IMAGES = {
    "docker.io/library/python:3.11-slim-bookworm": ["FROM localhost/stand-in-python", 'CMD ["python3"]'],
    "docker.io/library/postgres:17-alpine": [
        "FROM localhost/stand-in-servers",
        'ENTRYPOINT ["postgres-entrypoint"]',
        "STOPSIGNAL SIGINT",
        "VOLUME /var/lib/postgresql/data",
    ],
    "docker.io/library/redis:8-alpine": [
        "FROM localhost/stand-in-servers",
        "RUN chown 999:1000 /data",
        'ENTRYPOINT ["redis-entrypoint"]',
        'CMD ["redis-server"]',
        "WORKDIR /data",
        "VOLUME /data",
    ],
    "docker.io/library/caddy:2-alpine": [
        "FROM localhost/stand-in-servers",
        "ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data",
        'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]',
    ],
}
"""The Containerfile of each image, by the name that the Dockerfile or the compose file asks for."""


def _debian(tarball: Path, packages: list[str], hooks: list[str]) -> None:
    command = [
        shutil.which("mmdebstrap") or "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--dpkgopt=force-unsafe-io",  # what is lost with a crash is made again
        f"--include={','.join(packages)}",
    ]
    subprocess.run([*command, *(f"--customize-hook={hook}" for hook in hooks), _suite(), str(tarball)], check=True)


def _suite() -> str:
    """Debian's name of this machine's release, where its package sources are known to work."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.split("=")[1].strip('"') for line in lines if line.startswith("VERSION_CODENAME="))
