"""``python -m embedded.welcome``: waits until work can be done, then says where and how to sign in."""

import time
import urllib.error
import urllib.request

from dermq import taxonomy
from dermq.settings import Settings
from embedded import instance

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0
"""After this long it says what is missing, and again after as long."""


def main(settings: Settings) -> None:
    """Wait, print the welcome, end."""
    wait_until_ready(instance.address(settings) + "/health/ready")
    print(_text(settings, _sign_in_code(settings)), flush=True)


def wait_until_ready(url: str) -> None:
    """Wait until ``url`` answers with success; say what is missing when that takes long."""
    complain_at = time.monotonic() + _PATIENCE_SECONDS
    while (problem := _problem(url)) is not None:
        if time.monotonic() > complain_at:
            print(f"dermq is not ready yet: {problem}", flush=True)
            complain_at += _PATIENCE_SECONDS
        time.sleep(_POLL_SECONDS)


def _problem(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return None
    except urllib.error.HTTPError as err:
        return err.read(2_000).decode(errors="replace")
    except OSError as err:
        return str(err)


def _sign_in_code(settings: Settings) -> str:
    from dermq import db  # not before dermq is ready: the programs that it waits for need the processor
    from embedded import local_lab

    sessions = db.Sessions(settings.database)
    local_lab.ensure_token(settings, sessions)
    code = local_lab.issue_sign_in_code(settings, sessions)
    sessions.close()
    return code


def _text(settings: Settings, code: str) -> str:
    address = instance.address(settings)
    return f"""
  dermq is ready:  {address}
  Sign in:         {address}/sign-in?code={code}
                   (works once, for ten minutes; a new link with every start)
  Access token:    {instance.token_path(settings)}
  Logs:            {instance.logs(settings)}
  Stop:            Ctrl-C; everything is kept for the next start.

  {taxonomy.NOTICE}
"""


if __name__ == "__main__":
    main(Settings())
