"""``python -m embedded`` is ``make run``: it runs all programs of dermq on this machine until Ctrl-C.

``python -m embedded --reload`` is ``make dev``: programs restart when their code changes; a demo batch is submitted.
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
    """Run dermq until Ctrl-C; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m embedded", description="All of dermq on this machine.")
    parser.add_argument("--reload", action="store_true", help="restart programs when their code changes")
    reload = parser.parse_args().reload
    try:
        settings = _make_settings()
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


def _make_settings() -> Settings:
    try:
        settings = Settings()
    except ValidationError as err:
        wrong = "; ".join(f"DERMQ_{str(e['loc'][0]).upper()}: {e['msg']}" for e in err.errors())
        raise instance.Refused(f"a setting is wrong. {wrong}") from err
    return settings.model_copy(update={"var_dir": settings.var_dir.resolve()})


def _prepare(settings: Settings) -> None:
    if database.is_current(settings) and instance.find_token_path(settings).is_file():
        return
    command = [sys.executable, "-m", "embedded.prepare", str(settings.var_dir)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise instance.Refused("the database could not be prepared; the reason is printed above.")


def _run(settings: Settings, *, reload: bool) -> None:
    environment = {"DERMQ_VAR_DIR": "%(here)s"}
    socket = folder = None
    if "redis_url" not in settings.model_fields_set:
        folder = valkey.find_socket_folder(instance.find_run_folder(settings))
        socket = folder / "valkey.sock"
        environment["DERMQ_REDIS_URL"] = f"unix://{socket}"
    configuration = settings.var_dir / "supervisord.conf"
    wanted = programs.list_programs(socket, reload=reload)
    configuration.write_text(programs.make_configuration(wanted, environment))
    delays = {program.name: program.delay_seconds for program in wanted if program.delay_seconds}
    try:
        supervision.run(configuration, instance.find_logs_folder(settings), delays)
    finally:
        if folder is not None and folder != instance.find_run_folder(settings):
            shutil.rmtree(folder, ignore_errors=True)
    print("dermq has stopped; its data is kept.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
