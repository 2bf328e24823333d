"""supervisor as a library: runs the programs until Ctrl-C and tells the console what goes wrong."""

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
"""supervisor looks for ended children once a round, which otherwise lasts a second: at the start and at each stop."""


def run(configuration: Path, logs: Path, later: dict[str, int]) -> None:
    """Run the programs of ``configuration``; return when all have stopped after SIGINT, SIGTERM or SIGHUP.

    ``later`` holds by how many seconds a program starts after the others.
    """
    options = _Options()
    options.realize(["-c", str(configuration)])
    options.first = True
    options.test = False
    try:
        _Supervisor(options, logs, later).main()
    except asyncore.ExitNow:
        pass  # how supervisor ends
    finally:
        options.close_logger()


class _Poller(poller.Poller):
    def poll(self, timeout: float) -> Any:
        return super().poll(min(timeout, _ROUND_SECONDS))


class _Options(ServerOptions):
    """supervisor's surroundings, which here remember how the last child ended."""

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
    def __init__(self, options: Any, logs: Path, later: dict[str, int]) -> None:
        super().__init__(options)
        self.logs = logs
        self.later = later
        self.told: set[str] = set()

    def runforever(self) -> None:
        events.subscribe(events.ProcessStateExitedEvent, self.tell_of_exit)
        events.subscribe(events.ProcessStateBackoffEvent, self.tell_of_failed_start)
        events.subscribe(events.ProcessStateFatalEvent, self.tell_of_giving_up)
        events.subscribe(events.ProcessLogStdoutEvent, lambda event: _say(event.data.decode(errors="replace")))
        events.subscribe(events.SupervisorStoppingEvent, lambda event: _say("\nStopping …\n"))
        # A closed terminal means the end, not a restart as supervisor takes it.
        signal.signal(signal.SIGHUP, lambda *_: self.options.signal_receiver.receive(signal.SIGTERM, None))
        for name, seconds in self.later.items():
            process = self.process_groups[name].processes[name]
            # As if it had failed to start so often that the next attempt is due in so many seconds.
            process.state, process.backoff, process.delay = ProcessStates.BACKOFF, seconds, time.time() + seconds
        super().runforever()

    def tell_of_exit(self, event: Any) -> None:
        process = event.process
        if process.config.name in ("welcome", "demo") and process.exitstatus == 0:
            return
        if event.expected and process.config.autorestart is RestartWhenExitUnexpected:
            _say(f"{process.config.name} ended with status {process.exitstatus} and is not started again:\n")
            _say(self.tail(process.config.name))
        else:
            _say(f"{process.config.name} died and is started again; see {self.log(process.config.name)}\n")

    def tell_of_failed_start(self, event: Any) -> None:
        process = event.process
        if (
            process.config.autorestart is RestartWhenExitUnexpected
            and self.options.last_exit in process.config.exitcodes
        ):
            process.backoff = process.config.startretries + 1  # supervisor asks for the status of late ends only
        elif process.config.name not in self.told:
            self.told.add(process.config.name)
            _say(f"{process.config.name} did not start and is tried again; see {self.log(process.config.name)}\n")

    def tell_of_giving_up(self, event: Any) -> None:
        name = event.process.config.name
        if self.options.mood > 0:  # not while everything stops
            _say(f"{name} could not be started and is given up; the end of {self.log(name)}:\n{self.tail(name)}")

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "".join(f"  {line}\n" for line in lines)


def _say(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # the terminal is gone
        return
