"""The datasets that a network is trained on: their terms, and how their metadata are read.

HAM10000 is what a network is made for and judged on. The others are further images for training alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """One dataset, as a card names it."""

    title: str
    citation: str
    licence: str


HAM10000 = Dataset(
    title="HAM10000",
    citation="Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source "
    "dermatoscopic images of common pigmented skin lesions. Scientific Data 5, 180161 (2018). "
    "doi:10.1038/sdata.2018.161",
    licence="CC BY-NC 4.0",
)
ISIC2019 = Dataset(
    title="ISIC 2019 outside HAM10000 (BCN_20000 and MSK)",
    citation="Combalia M et al. BCN20000: Dermoscopic Lesions in the Wild (2019), arXiv:1908.02288. Codella NCF et al. "
    "Skin Lesion Analysis Toward Melanoma Detection (2018), arXiv:1710.05006. Tschandl P, Rosendahl C, Kittler H "
    "(2018), as above.",
    licence="CC BY-NC 4.0",
)
FURTHER = {"isic2019": ISIC2019}
"""By the name of the source in the manifest. Its ``metadata.csv`` lies beside its archive or inside its folder."""
