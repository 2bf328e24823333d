"""The description of a report format, which each format's module gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dermq.models import Batch
from web.reports.source import Source


@dataclass(frozen=True)
class ReportFormat:
    """A report format: its name for people, its address for programs, and the function that writes it."""

    name: str
    """The text of its button, e.g. ``JSON Lines``."""
    ending: str
    """The extension in the address and in the file name, e.g. ``isic.csv``."""
    media_type: str
    description: str
    """For the OpenAPI document: one sentence, and more after an empty line if needed."""
    columns: tuple[str, ...]
    example: str
    """The first line of a report, for the OpenAPI document."""
    write: Callable[[Source], Iterator[str]]
    """Yields the report in pieces, so that a batch is never in memory as a whole."""

    @property
    def key(self) -> str:
        """The name of its link in the status of a batch, e.g. ``report_isic_csv``."""
        return f"report_{self.ending.replace('.', '_')}"

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return self.description.partition("\n")[0]

    def file_name(self, batch: Batch) -> str:
        """Return the file name of a report, which holds ``-partial`` as long as the batch has not finished."""
        return f"dermq-{batch.id}{'' if batch.finished_at else '-partial'}.{self.ending}"
