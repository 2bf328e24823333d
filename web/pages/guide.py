"""The page that explains the API by commands that work on this host."""

from dataclasses import dataclass

from flask import render_template, request

from web.http import paths
from web.reports import registry


@dataclass(frozen=True)
class Example:
    """What to do, why, and the commands for it."""

    title: str
    text: str
    commands: str


def guide() -> str:
    """How to use the API, with commands that work on this host."""
    return render_template("guide.html", examples=examples(request.host_url.rstrip("/")))


def examples(host: str) -> list[Example]:
    """Commands for a shell, in the order in which a lab needs them. ``host`` is the address of this web."""
    return [Example(title, text, commands.strip()) for title, text, commands in _steps(f"{host}{paths.API}")]


def _steps(api: str) -> tuple[tuple[str, str, str], ...]:
    return (
        (
            "Prepare",
            "Every call carries an access token. Where dermq was started with make run, the local lab's token lies in "
            "var/local-token.",
            f"""
API={api}
TOKEN=dermq_…                        # or: TOKEN=$(cat var/local-token)
auth=(-H "Authorization: Bearer $TOKEN")
""",
        ),
        (
            "A batch in one request",
            "Up to a thousand files in one go. seal=true says that this was all of it.",
            """
curl "${auth[@]}" -F name=clinic-2026-11 -F seal=true -F files=@one.jpg -F files=@two.jpg $API/batches
""",
        ),
        (
            "A ZIP of any size",
            "Create an empty batch, send the archive as it is, and seal. A worker unpacks it while the first images "
            "are classified.",
            """
ID=$(curl -s "${auth[@]}" -H 'Content-Type: application/json' -d '{"name": "clinic-2026-11"}' $API/batches \\
     | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
curl "${auth[@]}" -T images.zip $API/batches/$ID/archive
curl "${auth[@]}" -X POST $API/batches/$ID/seal
""",
        ),
        (
            "Image by image",
            "The name goes into the query, percent-encoded. Sending the same name and bytes again changes nothing, so "
            "an interrupted upload is simply repeated.",
            """
curl "${auth[@]}" -T one.jpg "$API/batches/$ID/images?name=visit-2%2Fone.jpg"
""",
        ),
        (
            "Watch it",
            "Poll with the ETag of the last answer: 304 means that nothing has changed.",
            """
curl "${auth[@]}" $API/batches/$ID
curl "${auth[@]}" "$API/batches/$ID/images?state=failed"
curl "${auth[@]}" $API/batches/$ID/refusals
""",
        ),
        (
            "Fetch the report",
            "At any time; before the batch has finished the file's name ends in -partial.",
            "\n".join(
                f'curl "${{auth[@]}}" -OJ $API/batches/$ID/report.{report_format.ending}'
                for report_format in registry.FORMATS
            ),
        ),
        (
            "Cancel, retry, delete",
            "Cancelling stops what has not run. Deleting removes rows and images for good.",
            """
curl "${auth[@]}" -X POST $API/batches/$ID/cancel
curl "${auth[@]}" -X POST $API/batches/$ID/retry
curl "${auth[@]}" -X DELETE $API/batches/$ID
""",
        ),
    )
