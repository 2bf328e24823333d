"""``python -m embedded.demo``: submits a batch of generated pictures, once for each ``var/``.

The pictures are blurred discs on a background of another colour, so no image of a person is needed.
"""

import io
import json
import random
import urllib.parse
import urllib.request

from PIL import Image, ImageDraw, ImageFilter

from dermq.settings import Settings
from embedded import instance, welcome

NAME = "demo"
PICTURES = 40
_WIDTH, _HEIGHT = 200, 150


def main(settings: Settings) -> None:
    """Wait until dermq is ready and submit the batch, unless it was submitted from this ``var/`` before."""
    welcome.wait_until_ready(instance.make_address(settings) + "/health/ready")
    api = f"{instance.make_address(settings)}/api/v1/batches"
    headers = {"Authorization": f"Bearer {instance.find_token_path(settings).read_text().strip()}"}
    marker = settings.var_dir / "demo-batch"
    if marker.exists():
        return
    batch = json.loads(_call("POST", api, headers, json.dumps({"name": NAME}).encode(), "application/json"))
    address = f"{api}/{batch['id']}"
    for number in range(PICTURES):
        name = urllib.parse.quote(f"generated-{number + 1:02}.jpg")
        _call("PUT", f"{address}/images?name={name}", headers, draw(number), "image/jpeg")
    _call("POST", f"{address}/seal", headers, b"", "application/json")
    marker.write_text(batch["id"])
    print(
        f"A demo batch of {PICTURES} generated pictures: {instance.make_address(settings)}/batches/{batch['id']}",
        flush=True,
    )


def draw(seed: int) -> bytes:
    """Return a JPEG of a dark blurred disc on a lighter background; equal seeds give equal bytes."""
    chance = random.Random(seed)
    ground = tuple(chance.randint(150, 230) for _ in range(3))
    disc = tuple(chance.randint(30, 130) for _ in range(3))
    image = Image.new("RGB", (_WIDTH, _HEIGHT), ground)
    x, y, radius = chance.randint(70, 130), chance.randint(60, 90), chance.randint(20, 50)
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=disc)
    out = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(chance.uniform(2, 8))).save(out, "JPEG")
    return out.getvalue()


def _call(method: str, url: str, headers: dict[str, str], body: bytes, kind: str) -> bytes:
    request = urllib.request.Request(url, body, headers | {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: bytes = answer.read()
        return found


if __name__ == "__main__":
    main(Settings())
