"""What every report format says of itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dermq.models import Batch
from web.reports.source import Source


@dataclass(frozen=True)
class ReportFormat:
    """A report format: how people know it, how programs ask for it, and how it writes a batch."""

    name: str
    """For people, on the buttons of a page, e.g. ``JSON Lines``."""
    ending: str
    """What follows the dot, in the address and in the file's name, e.g. ``isic.csv``."""
    media_type: str
    description: str
    """For the OpenAPI document: one sentence, then after an empty line more if needed."""
    columns: tuple[str, ...]
    example: str
    """The first line of a report, for the OpenAPI document."""
    write: Callable[[Source], Iterator[str]]
    """Yield the report in pieces, so that no batch is in memory as a whole."""

    @property
    def key(self) -> str:
        """The name of its link in a batch's status, e.g. ``report_isic_csv``."""
        return f"report_{self.ending.replace('.', '_')}"

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return self.description.partition("\n")[0]

    def file_name(self, batch: Batch) -> str:
        """Return what a report is called: with ``-partial`` while the batch has not finished."""
        return f"dermq-{batch.id}{'' if batch.finished_at else '-partial'}.{self.ending}"
