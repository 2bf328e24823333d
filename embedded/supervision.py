"""Uses supervisor as a library: runs the programs until Ctrl-C and prints their failures on the console."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

from supervisor import events, poller, supervisord
from supervisor.datatypes import RestartWhenExitUnexpected
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions, decode_wait_status
from supervisor.states import ProcessStates

_TAIL_LINES = 15
_ROUND_SECONDS = 0.1
"""The longest wait of supervisor's loop. Its default is a second, which would delay the start and every stop."""


def run(configuration: Path, logs: Path, delays: dict[str, int]) -> None:
    """Run the programs of ``configuration``; return when all have stopped after SIGINT, SIGTERM or SIGHUP.

    ``logs`` is the folder of the programs' logs. ``delays`` holds, by the name of a program, how many seconds after the
    others it starts.
    """
    options = _Options()
    options.realize(["-c", str(configuration)])
    options.first = True
    options.test = False
    try:
        _Supervisor(options, logs, delays).main()
    except asyncore.ExitNow:
        pass  # supervisor raises this for a normal end
    finally:
        options.close_logger()


class _Poller(poller.Poller):
    def poll(self, timeout: float) -> Any:
        return super().poll(min(timeout, _ROUND_SECONDS))


class _Options(ServerOptions):
    """supervisor's options, with the exit status of the child that ended last."""

    last_exit = 0

    def __init__(self) -> None:
        super().__init__()
        self.poller = _Poller(self)

    def waitpid(self) -> tuple[int | None, int | None]:
        pid, status = super().waitpid()
        if pid:
            self.last_exit, _ = decode_wait_status(status)
        return pid, status


class _Supervisor(supervisord.Supervisor):
    def __init__(self, options: Any, logs: Path, delays: dict[str, int]) -> None:
        super().__init__(options)
        self.logs = logs
        self.delays = delays
        self.reported: set[str] = set()

    def runforever(self) -> None:
        events.subscribe(events.ProcessStateExitedEvent, self.report_exit)
        events.subscribe(events.ProcessStateBackoffEvent, self.report_failed_start)
        events.subscribe(events.ProcessStateFatalEvent, self.report_giving_up)
        events.subscribe(events.ProcessLogStdoutEvent, lambda event: _print(event.data.decode(errors="replace")))
        events.subscribe(events.SupervisorStoppingEvent, lambda event: _print("\nStopping …\n"))
        # supervisor restarts on SIGHUP. Here SIGHUP means that the terminal was closed, so dermq stops.
        signal.signal(signal.SIGHUP, lambda *_: self.options.signal_receiver.receive(signal.SIGTERM, None))
        for name, seconds in self.delays.items():
            process = self.process_groups[name].processes[name]
            # supervisor has no delayed start. A program in back-off is started when ``delay`` is reached.
            process.state, process.backoff, process.delay = ProcessStates.BACKOFF, seconds, time.time() + seconds
        super().runforever()

    def report_exit(self, event: Any) -> None:
        process = event.process
        if process.config.name in ("welcome", "demo") and process.exitstatus == 0:
            return
        if event.expected and process.config.autorestart is RestartWhenExitUnexpected:
            _print(f"{process.config.name} ended with status {process.exitstatus} and is not started again:\n")
            _print(self.read_tail(process.config.name))
        else:
            _print(f"{process.config.name} died and is started again; see {self.log_path(process.config.name)}\n")

    def report_failed_start(self, event: Any) -> None:
        process = event.process
        if (
            process.config.autorestart is RestartWhenExitUnexpected
            and self.options.last_exit in process.config.exitcodes
        ):
            process.backoff = process.config.startretries + 1  # supervisor ignores exit codes during the start phase
        elif process.config.name not in self.reported:
            self.reported.add(process.config.name)
            _print(
                f"{process.config.name} did not start and is tried again; see {self.log_path(process.config.name)}\n"
            )

    def report_giving_up(self, event: Any) -> None:
        name = event.process.config.name
        if self.options.mood > 0:  # a negative mood means that supervisor is stopping
            last_lines = self.read_tail(name)
            _print(f"{name} could not be started and is given up; the end of {self.log_path(name)}:\n{last_lines}")

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def read_tail(self, name: str) -> str:
        lines = self.log_path(name).read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "".join(f"  {line}\n" for line in lines)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # the terminal was closed
        return
