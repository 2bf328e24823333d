"""The submission format of ISIC 2018 Task 3, with a row for every image that is done."""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from dermq import taxonomy
from dermq.lifecycle import ImageState
from dermq.models import Prediction
from web.reports.cells import make_cell, write_csv_lines
from web.reports.report_format import ReportFormat
from web.reports.source import Source

COLUMNS = ("image", *(code.upper() for code in taxonomy.ISIC_CODES))


def write(source: Source) -> Iterator[str]:
    """Yield the header, then the rows, one page of images at a time."""
    ids = _ImageIds(source)
    yield write_csv_lines([COLUMNS])
    for _, rows in source.read_pages():
        yield write_csv_lines(
            [make_cell(ids.of(image.name)), *_list_probabilities(prediction)]
            for image, prediction in rows
            if image.state == ImageState.DONE and prediction is not None
        )


def _list_probabilities(prediction: Prediction) -> list[str]:
    return [f"{getattr(prediction, f'p_{code}'):.8f}" for code in taxonomy.ISIC_CODES]


class _ImageIds:
    """The image ids of a batch: base names without extension, or with their folders if the base name is not unique."""

    def __init__(self, source: Source) -> None:
        names = (image.name for _, rows in source.read_pages() for image, _ in rows)
        stems = Counter(PurePosixPath(name).stem for name in names)
        self._shared = {stem for stem, count in stems.items() if count > 1}

    def of(self, name: str) -> str:
        path = PurePosixPath(name)
        return str(path.with_suffix("")) if path.stem in self._shared else path.stem


FORMAT = ReportFormat(
    name="ISIC CSV",
    ending="isic.csv",
    media_type="text/csv",
    description="Download the images that are done in the submission format of ISIC 2018 Task 3.",
    columns=COLUMNS,
    example=",".join(COLUMNS),
    write=write,
)
