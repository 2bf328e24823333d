"""Two pages of information: the diagnoses, and the bundle that is in use."""

from flask import render_template

from web import services


def show_diagnoses() -> str:
    """Show the seven diagnoses with their full names."""
    return render_template("diagnoses.html")


def show_bundle() -> str:
    """Show the card of the bundle that new batches use."""
    current = services.get_current().find_bundle()
    splits = sorted(current.card.metrics.items(), key=lambda split: split[0] != "test")
    return render_template("bundle.html", card=current.card, sha256=current.sha256, splits=splits)
