"""What runs, in which order it stops, and how long each may take: written out as supervisor's configuration.

A path in the configuration is relative to the clone or stands as ``%(here)s``, which is ``var/``: supervisor reads
blanks, ``%``, ``;`` and ``#`` in paths in ways of its own.
"""

import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dermq.settings import ROOT
from embedded import valkey

CANNOT_VERIFY = 78
"""Exit status of a worker that must not work; starting it again would not help."""


@dataclass(frozen=True)
class Program:
    """One program under the process manager."""

    name: str
    command: list[str]
    stop_order: int
    """The greatest stops first: web, reaper, workers, Valkey."""
    stop_seconds: int
    """After this long it is killed, with all its children. Together below 20."""
    start_seconds: int = 2
    """Dead sooner means that it did not start: tried again with growing pauses, then given up."""
    ends: str = ""
    """Exit status after which it is not started again."""
    later_seconds: int = 0
    """Starts this long after the others, which are in a hurry to be ready."""
    speaks: bool = False
    """Its output goes to the console instead of a log; it runs once."""


def all_programs(socket: Path | None, *, reload: bool = False) -> list[Program]:
    """Every program; ``socket`` is where Valkey listens, or None where another Redis is given.

    With ``reload`` web, workers and reaper start again when their code changes, and a demo batch is submitted.
    """
    web = ["gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"]
    found = [
        Program("classify", _python("worker", "classify"), 20, 7, ends=str(CANNOT_VERIFY)),
        Program("intake", _python("worker", "intake"), 20, 7),
        Program("reaper", _python("worker", "reaper"), 30, 3, later_seconds=5),
        Program("web", _python(*web), 40, 6),
        Program("welcome", _python("embedded.welcome"), 50, 1, start_seconds=0, ends="0", speaks=True, later_seconds=2),
    ]
    if reload:
        found = [_reloading(program) for program in found]
        found.append(Program("demo", _python("embedded.demo"), 50, 1, 0, ends="0", speaks=True, later_seconds=2))
    if socket is not None:
        found.insert(0, Program("valkey", [_relative(valkey.server()), *valkey.arguments(socket)[1:]], 10, 2))
    return found


_WATCHED = {
    "classify": ("worker", "dermq"),
    "intake": ("worker", "dermq"),
    "reaper": ("worker", "dermq"),
    "web": ("web", "dermq"),
}


def _reloading(program: Program) -> Program:
    """The same program under watchfiles, which starts it again when a file of its folders changes.

    What ends by itself is then not started again before the next change: its log says why it ended.
    """
    if program.name not in _WATCHED:
        return program
    stop = ["--sigint-timeout", str(program.stop_seconds - 1), "--sigkill-timeout", "1"]
    command = [*_python("watchfiles"), *stop, "--target-type", "command", shlex.join(program.command)]
    return replace(program, command=[*command, *_WATCHED[program.name]])


def configuration(programs: list[Program], environment: dict[str, str]) -> str:
    """The text of ``supervisord.conf``, to be put into ``var/``."""
    variables = ",".join(f'{name}="{value}"' for name, value in environment.items())
    return "\n".join([_MANAGER.format(environment=variables), *map(_section, programs)])


_MANAGER = """\
[supervisord]
nodaemon=true
silent=true
logfile=%(here)s/log/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=%(here)s/run/supervisord.pid
childlogdir=%(here)s/log
umask=077
minfds=256
environment={environment}
"""

_PROGRAM = """\
[program:{name}]
command={command}
priority={stop_order}
startsecs={start_seconds}
startretries=10
autorestart={restarts}
exitcodes={exitcodes}
stopsignal=TERM
stopwaitsecs={stop_seconds}
stopasgroup=false
killasgroup=true
"""

_LOGGED = """\
redirect_stderr=true
stdout_logfile=%(here)s/log/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""

_SPOKEN = """\
stdout_logfile=NONE
stdout_events_enabled=true
stderr_logfile=%(here)s/log/{name}.log
stderr_logfile_maxbytes=1MB
stderr_logfile_backups=1
"""


def _section(program: Program) -> str:
    output = _SPOKEN if program.speaks else _LOGGED
    return (_PROGRAM + output).format(
        name=program.name,
        command=shlex.join(program.command).replace("%", "%%"),
        stop_order=program.stop_order,
        stop_seconds=program.stop_seconds,
        start_seconds=program.start_seconds,
        restarts="unexpected" if program.ends else "true",
        exitcodes=program.ends or "0",
    )


def _python(*module: str) -> list[str]:
    return [_relative(Path(sys.executable)), "-m", *module]


def _relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)
