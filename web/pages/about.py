"""Pages to read: the diagnoses and the bundle."""

from flask import render_template

from web import services


def diagnoses() -> str:
    """The seven diagnoses by their full names."""
    return render_template("diagnoses.html")


def bundle() -> str:
    """The card of the bundle that new batches use."""
    current = services.current().bundle()
    splits = sorted(current.card.metrics.items(), key=lambda split: split[0] != "test")
    return render_template("bundle.html", card=current.card, sha256=current.sha256, splits=splits)
