"""Only the head, on a frozen EfficientNetB1 from ../shared/weights, at 240 px.

    python -m training train frozen

Cost: about 5 minutes on two cores, 4 of them for the features.
Expected on the lesion-disjoint test split: accuracy about 0.73, balanced accuracy about 0.40. The start weights are
not the published ImageNet weights; do not expect more from a frozen backbone.
"""

from training.config import Config, Head

CONFIG = Config(
    name="frozen",
    size=240,
    start="shared",
    plan=Head(),
    description="Only the last layer was trained, on features of a frozen backbone.",
)
