"""``python -m embedded``, what ``make run`` starts: all of dermq on this machine until Ctrl-C.

``python -m embedded --reload`` is ``make dev``: programs start again when their code changes, and a demo batch is made.
"""

import argparse
import os
import shutil
import subprocess
import sys

from pydantic import ValidationError

from dermq import taxonomy
from dermq.settings import ROOT, Settings
from embedded import database, instance, programs, supervision, valkey


def main() -> int:
    """Run dermq until Ctrl-C. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m embedded", description="All of dermq on this machine.")
    parser.add_argument("--reload", action="store_true", help="start programs again when their code changes")
    reload = parser.parse_args().reload
    try:
        settings = _settings()
        os.umask(0o077)
        instance.make_folders(settings)
        with instance.lock(settings):
            instance.check_port(settings)
            print(f"Starting dermq … {taxonomy.NOTICE}", flush=True)
            _prepare(settings)
            _run(settings, reload=reload)
    except instance.Refused as err:
        print(f"dermq does not start: {err}", file=sys.stderr)
        return 1
    return 0


def _settings() -> Settings:
    try:
        settings = Settings()
    except ValidationError as err:
        wrong = "; ".join(f"DERMQ_{str(e['loc'][0]).upper()}: {e['msg']}" for e in err.errors())
        raise instance.Refused(f"a setting is wrong. {wrong}") from err
    return settings.model_copy(update={"var_dir": settings.var_dir.resolve()})


def _prepare(settings: Settings) -> None:
    if database.is_current(settings) and instance.token_path(settings).is_file():
        return
    command = [sys.executable, "-m", "embedded.prepare", str(settings.var_dir)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise instance.Refused("the database could not be prepared; the reason stands above.")


def _run(settings: Settings, *, reload: bool) -> None:
    environment = {"DERMQ_VAR_DIR": "%(here)s"}
    socket = folder = None
    if "redis_url" not in settings.model_fields_set:
        folder = valkey.socket_folder(instance.run(settings))
        socket = folder / "valkey.sock"
        environment["DERMQ_REDIS_URL"] = f"unix://{socket}"
    configuration = settings.var_dir / "supervisord.conf"
    wanted = programs.all_programs(socket, reload=reload)
    configuration.write_text(programs.configuration(wanted, environment))
    later = {program.name: program.later_seconds for program in wanted if program.later_seconds}
    try:
        supervision.run(configuration, instance.logs(settings), later)
    finally:
        if folder is not None and folder != instance.run(settings):
            shutil.rmtree(folder, ignore_errors=True)
    print("dermq has stopped; its data is kept.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
