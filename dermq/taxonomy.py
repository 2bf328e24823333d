"""The seven diagnoses of HAM10000, in the one order used everywhere, and the research-only notice.

Source: Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Scientific Data 5, 180161 (2018).
"""

from dataclasses import dataclass

NOTICE = "For research only. dermq has no clinical or diagnostic value and must not be used for diagnosis."
"""Shown on every page and in every report for people."""


@dataclass(frozen=True)
class Diagnosis:
    """One of the seven diagnoses that a bundle tells apart."""

    code: str
    """Short code as HAM10000 writes it, e.g. ``mel``."""
    name: str
    """Full name for people."""
    description: str
    """A sentence that explains it."""


DIAGNOSES = (
    Diagnosis(
        "akiec",
        "Actinic keratosis and intraepithelial carcinoma",
        "Non-invasive variants of squamous cell carcinoma (actinic keratoses and Bowen's disease) that grow on "
        "sun-damaged skin and may become invasive.",
    ),
    Diagnosis(
        "bcc",
        "Basal cell carcinoma",
        "A common cancer of the epidermis that rarely spreads but destroys the tissue around it when untreated.",
    ),
    Diagnosis(
        "bkl",
        "Benign keratosis-like lesion",
        "Seborrhoeic keratoses, solar lentigines and lichen-planus-like keratoses: harmless growths that can look "
        "like melanoma.",
    ),
    Diagnosis(
        "df",
        "Dermatofibroma",
        "A benign nodule of the dermis, thought to be a proliferation or a reaction to a minor injury.",
    ),
    Diagnosis(
        "mel",
        "Melanoma",
        "A malignant tumour of the melanocytes that can be cured by simple excision when it is found early.",
    ),
    Diagnosis(
        "nv",
        "Melanocytic nevus",
        "A benign growth of melanocytes, the ordinary mole in its many variants.",
    ),
    Diagnosis(
        "vasc",
        "Vascular lesion",
        "Benign lesions of the blood vessels: cherry angiomas, angiokeratomas, pyogenic granulomas and haemorrhages.",
    ),
)
"""Alphabetical by code: the order of every vector of seven probabilities."""

CODES = tuple(diagnosis.code for diagnosis in DIAGNOSES)
ISIC_CODES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
"""The column order of the ISIC 2018 Task 3 submission format."""

BY_CODE = {diagnosis.code: diagnosis for diagnosis in DIAGNOSES}
