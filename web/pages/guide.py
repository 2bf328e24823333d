"""The page that explains the API with commands that work on this host."""

from dataclasses import dataclass

from flask import render_template, request

from web.http import paths
from web.reports import registry


@dataclass(frozen=True)
class Example:
    """One task: its title, an explanation, and the commands for it."""

    title: str
    text: str
    commands: str


def show_guide() -> str:
    """Show how to use the API, with commands that work on this host."""
    return render_template("guide.html", examples=list_examples(request.host_url.rstrip("/")))


def list_examples(host: str) -> list[Example]:
    """Return examples for a shell, in the order in which a lab needs them. ``host`` is the address of this web."""
    return [Example(title, text, commands.strip()) for title, text, commands in _list_steps(f"{host}{paths.API}")]


def _list_steps(api: str) -> tuple[tuple[str, str, str], ...]:
    return (
        (
            "Prepare",
            "Every call needs an access token. If dermq was started with make run, the token of the local lab is in "
            "the file var/local-token.",
            f"""
API={api}
TOKEN=dermq_…                        # or: TOKEN=$(cat var/local-token)
auth=(-H "Authorization: Bearer $TOKEN")
""",
        ),
        (
            "A batch in one request",
            "Send up to a thousand files in one request. With seal=true, the upload is finished: no more files follow.",
            """
curl "${auth[@]}" -F name=clinic-2026-11 -F seal=true -F files=@one.jpg -F files=@two.jpg $API/batches
""",
        ),
        (
            "A ZIP of any size",
            "Create an empty batch, send the archive, and seal the batch, which finishes the upload. A worker unpacks "
            "the archive, and classification starts with its first images.",
            """
ID=$(curl -s "${auth[@]}" -H 'Content-Type: application/json' -d '{"name": "clinic-2026-11"}' $API/batches \\
     | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
curl "${auth[@]}" -T images.zip $API/batches/$ID/archive
curl "${auth[@]}" -X POST $API/batches/$ID/seal
""",
        ),
        (
            "Image by image",
            "Put the percent-encoded name into the address. Sending the same name and content again changes nothing, "
            "so repeat an upload that was interrupted.",
            """
curl "${auth[@]}" -T one.jpg "$API/batches/$ID/images?name=visit-2%2Fone.jpg"
""",
        ),
        (
            "Follow the progress",
            "Ask for the status of the batch, its failed images and the files that were refused. Programs that ask "
            "often should send the ETag of the last answer; the answer is 304 if nothing has changed.",
            """
curl "${auth[@]}" $API/batches/$ID
curl "${auth[@]}" "$API/batches/$ID/images?state=failed"
curl "${auth[@]}" $API/batches/$ID/refusals
""",
        ),
        (
            "Download a report",
            "A report can be downloaded at any time. Until the batch has finished, the file name ends in -partial.",
            "\n".join(
                f'curl "${{auth[@]}}" -OJ $API/batches/$ID/report.{report_format.ending}'
                for report_format in registry.FORMATS
            ),
        ),
        (
            "Cancel, retry, delete",
            "Cancelling stops the images that still wait. Retrying classifies failed images again. Deleting removes "
            "the batch, its images and its results for good.",
            """
curl "${auth[@]}" -X POST $API/batches/$ID/cancel
curl "${auth[@]}" -X POST $API/batches/$ID/retry
curl "${auth[@]}" -X DELETE $API/batches/$ID
""",
        ),
    )
