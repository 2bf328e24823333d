"""The commands on the page of the API do what it says."""

import shutil
import subprocess
from pathlib import Path

from tests import conftest, samples
from tests.browser.conftest import System
from web.pages import guide
from web.reports import registry

_STRICT = """
set -eu
curl() { command curl -sS --fail-with-body "$@"; echo; }
"""


def test_the_guides_commands_work_as_they_stand(web_alone: System, tmp_path: Path) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        conftest.missing("curl and bash")
    for number, name in enumerate(("one.jpg", "two.jpg")):
        (tmp_path / name).write_bytes(samples.jpeg(number))
    (tmp_path / "images.zip").write_bytes(samples.archive({"three.jpg": samples.jpeg(3)}))
    done = subprocess.run(
        ["bash", "-c", _STRICT + _script(web_alone)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("*-partial*"))) == len(registry.FORMATS)


def _script(system: System) -> str:
    steps = {example.title: example.commands for example in guide.examples(system.url)}
    steps["Prepare"] = steps["Prepare"].replace("dermq_…", system.token)
    # Sealed only after the image that follows, and nothing has failed that could be tried again.
    archive, seal = steps["A ZIP of any size"].rsplit("\n", 1)
    steps["A ZIP of any size"] = archive
    steps["Image by image"] += "\n" + seal
    lines = "\n".join(steps.values()).splitlines()
    return "\n".join(line for line in lines if "/retry" not in line)
