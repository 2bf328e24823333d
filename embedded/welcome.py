"""``python -m embedded.welcome``: waits until dermq is ready, then prints its address and how to sign in."""

import time
import urllib.error
import urllib.request

from dermq import taxonomy
from dermq.settings import Settings
from embedded import instance

_POLL_SECONDS = 0.1
_REPORT_SECONDS = 60.0
"""While dermq is not ready, the reason is printed after this time and then each time it passes again."""


def main(settings: Settings) -> None:
    """Wait until dermq is ready, then print its address and a sign-in link."""
    wait_until_ready(instance.make_address(settings) + "/health/ready")
    print(_make_text(settings, _issue_code(settings)), flush=True)


def wait_until_ready(url: str) -> None:
    """Wait until ``url`` answers with success; print the reason every ``_REPORT_SECONDS`` while it does not."""
    report_at = time.monotonic() + _REPORT_SECONDS
    while (problem := _find_problem(url)) is not None:
        if time.monotonic() > report_at:
            print(f"dermq is not ready yet: {problem}", flush=True)
            report_at += _REPORT_SECONDS
        time.sleep(_POLL_SECONDS)


def _find_problem(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return None
    except urllib.error.HTTPError as err:
        return err.read(2_000).decode(errors="replace")
    except OSError as err:
        return str(err)


def _issue_code(settings: Settings) -> str:
    from dermq import db  # imported late: while dermq starts, the other programs need the processor
    from embedded import local_lab

    sessions = db.Sessions(settings.database)
    local_lab.ensure_token(settings, sessions)
    code = local_lab.issue_sign_in_code(settings, sessions)
    sessions.close()
    return code


def _make_text(settings: Settings, code: str) -> str:
    address = instance.make_address(settings)
    return f"""
  dermq is ready:  {address}
  Sign in:         {address}/sign-in?code={code}
                   (this link works once, within ten minutes; every start prints a new one)
  Access token:    {instance.find_token_path(settings)}
  Logs:            {instance.find_logs_folder(settings)}
  Stop:            press Ctrl-C; all data is kept for the next start.

  {taxonomy.NOTICE}
"""


if __name__ == "__main__":
    main(Settings())
