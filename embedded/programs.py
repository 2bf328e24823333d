"""The programs that supervisor runs, their stop order and their time limits, as supervisor's configuration.

Paths in the configuration are relative to the clone or begin with ``%(here)s``, which is ``var/``. An absolute path may
hold blanks, ``%``, ``;`` or ``#``, and supervisor gives these characters a special meaning.
"""

import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dermq.settings import ROOT
from embedded import valkey

CANNOT_VERIFY = 78
"""The exit status of a worker that cannot verify its bundle; a restart would not help."""


@dataclass(frozen=True)
class Program:
    """One program that supervisor starts, restarts and stops."""

    name: str
    command: list[str]
    stop_order: int
    """Programs with a greater number stop first: web, reaper, workers, Valkey."""
    stop_seconds: int
    """The program and its children are killed after this time. The stop of all programs must take less than 20 s."""
    start_seconds: int = 2
    """A program that ends sooner has failed to start. supervisor tries again with growing pauses, then gives up."""
    final_status: str = ""
    """The exit status after which the program is not restarted."""
    delay_seconds: int = 0
    """The program starts this long after the others, which should be ready first."""
    prints: bool = False
    """Whether the output goes to the console instead of a log. Such a program runs once."""


def list_programs(socket: Path | None, *, reload: bool = False) -> list[Program]:
    """Return every program. ``socket`` is where Valkey listens, or None when the settings name another Redis.

    With ``reload``, web, workers and reaper restart when their code changes, and a demo batch is submitted.
    """
    web = ["gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"]
    found = [
        Program("classify", _make_python_command("worker", "classify"), 20, 7, final_status=str(CANNOT_VERIFY)),
        Program("intake", _make_python_command("worker", "intake"), 20, 7),
        Program("reaper", _make_python_command("worker", "reaper"), 30, 3, delay_seconds=5),
        Program("web", _make_python_command(*web), 40, 6),
        Program(
            "welcome",
            _make_python_command("embedded.welcome"),
            50,
            1,
            0,
            final_status="0",
            prints=True,
            delay_seconds=2,
        ),
    ]
    if reload:
        found = [_add_reload(program) for program in found]
        found.append(
            Program(
                "demo", _make_python_command("embedded.demo"), 50, 1, 0, final_status="0", prints=True, delay_seconds=2
            )
        )
    if socket is not None:
        found.insert(
            0, Program("valkey", [_make_relative(valkey.find_server()), *valkey.make_arguments(socket)[1:]], 10, 2)
        )
    return found


_WATCHED = {
    "classify": ("worker", "dermq"),
    "intake": ("worker", "dermq"),
    "reaper": ("worker", "dermq"),
    "web": ("web", "dermq"),
}


def _add_reload(program: Program) -> Program:
    """Return the program under watchfiles, which restarts it when a file in its folders changes.

    A program that ends by itself is not restarted before the next change; its log says why it ended.
    """
    if program.name not in _WATCHED:
        return program
    stop = ["--sigint-timeout", str(program.stop_seconds - 1), "--sigkill-timeout", "1"]
    command = [*_make_python_command("watchfiles"), *stop, "--target-type", "command", shlex.join(program.command)]
    return replace(program, command=[*command, *_WATCHED[program.name]])


def make_configuration(programs: list[Program], environment: dict[str, str]) -> str:
    """Return the text of ``var/supervisord.conf``."""
    variables = ",".join(f'{name}="{value}"' for name, value in environment.items())
    return "\n".join([_SUPERVISORD.format(environment=variables), *map(_make_section, programs)])


_SUPERVISORD = """\
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

_PRINTED = """\
stdout_logfile=NONE
stdout_events_enabled=true
stderr_logfile=%(here)s/log/{name}.log
stderr_logfile_maxbytes=1MB
stderr_logfile_backups=1
"""


def _make_section(program: Program) -> str:
    output = _PRINTED if program.prints else _LOGGED
    return (_PROGRAM + output).format(
        name=program.name,
        command=shlex.join(program.command).replace("%", "%%"),
        stop_order=program.stop_order,
        stop_seconds=program.stop_seconds,
        start_seconds=program.start_seconds,
        restarts="unexpected" if program.final_status else "true",
        exitcodes=program.final_status or "0",
    )


def _make_python_command(*module: str) -> list[str]:
    return [_make_relative(Path(sys.executable)), "-m", *module]


def _make_relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)
