"""supervisor as a library: runs the programs until Ctrl-C and tells the console what goes wrong."""

import signal
import sys
from pathlib import Path
from typing import Any

from supervisor import events, supervisord
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions

_TAIL_LINES = 15


def run(configuration: Path, logs: Path) -> None:
    """Run the programs of ``configuration``; return when all have stopped after SIGINT, SIGTERM or SIGHUP."""
    options = ServerOptions()
    options.realize(["-c", str(configuration)])
    options.first = True
    options.test = False
    try:
        _Supervisor(options, logs).main()
    except asyncore.ExitNow:
        pass  # how supervisor ends
    finally:
        options.close_logger()


class _Supervisor(supervisord.Supervisor):
    def __init__(self, options: Any, logs: Path) -> None:
        super().__init__(options)
        self.logs = logs

    def runforever(self) -> None:
        events.subscribe(events.ProcessStateExitedEvent, self.tell_of_exit)
        events.subscribe(events.ProcessStateBackoffEvent, self.tell_of_failed_start)
        events.subscribe(events.ProcessStateFatalEvent, self.tell_of_giving_up)
        events.subscribe(events.ProcessLogStdoutEvent, lambda event: _say(event.data.decode(errors="replace")))
        events.subscribe(events.SupervisorStoppingEvent, lambda event: _say("\nStopping …\n"))
        # A closed terminal means the end, not a restart as supervisor takes it.
        signal.signal(signal.SIGHUP, lambda *_: self.options.signal_receiver.receive(signal.SIGTERM, None))
        super().runforever()

    def tell_of_exit(self, event: Any) -> None:
        process = event.process
        if process.config.name == "welcome" and process.exitstatus == 0:
            return
        if event.expected:
            _say(f"{process.config.name} ended with status {process.exitstatus} and is not started again:\n")
            _say(self.tail(process.config.name))
        else:
            _say(f"{process.config.name} died and is started again; see {self.log(process.config.name)}\n")

    def tell_of_failed_start(self, event: Any) -> None:
        _say(f"{event.process.config.name} did not start; it is tried again.\n")

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
