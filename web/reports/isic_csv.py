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
    """The image ids of a batch: base names without extension, or longer parts of the names where these are not unique.

    More is the name with its folders, and then with its extension too. Whole names are unique in a batch.
    """

    def __init__(self, source: Source) -> None:
        names = [image.name for _, rows in source.read_pages() for image, _ in rows]
        levels = dict.fromkeys(names, 0)
        for _ in range(len(names)):
            counts = Counter(_shorten(name, level) for name, level in levels.items())
            shared = [name for name, level in levels.items() if level < 2 and counts[_shorten(name, level)] > 1]
            if not shared:
                break
            levels |= {name: levels[name] + 1 for name in shared}
        self._long = {name: level for name, level in levels.items() if level}

    def of(self, name: str) -> str:
        return _shorten(name, self._long.get(name, 0))


def _shorten(name: str, level: int) -> str:
    """Return the base name without extension at level 0, the name without extension at level 1, the name at level 2."""
    if level == 2:
        return name
    folders, slash, base = name.rpartition("/")
    stem = PurePosixPath(base).stem
    return stem if level == 0 else f"{folders}{slash}{stem}"


FORMAT = ReportFormat(
    name="ISIC CSV",
    ending="isic.csv",
    media_type="text/csv",
    description="Download the images that are done in the submission format of ISIC 2018 Task 3.",
    columns=COLUMNS,
    example=",".join(COLUMNS),
    write=write,
)
