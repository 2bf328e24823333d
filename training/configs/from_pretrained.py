"""The whole EfficientNetB1 from what `pretrained` made, on HAM10000's every source, at 128 and then 160 px.

    python -m training train pretrained             (first, or no weights to go on from)
    python -m training train from_pretrained        (then, after any stop)
    python -m training train from_pretrained --resume

Sources and augmentation are those of `full`, a quarter of the images besides as if their frame had been cut square.
Cost: 8 minutes an epoch at 128 px and 12 at 160 px by the rate of a step (see training/README.md). Expected: not known
yet, the run is not finished.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="from_pretrained",
    size=160,
    start="shared",
    continues="pretrained",
    plan=Finetune(
        phases=(Phase(128, 5), Phase(160, 4)), rate=4e-4, final_rate=5e-6, warmup_epochs=0.25, augmentation="framed"
    ),
    augmentation=augment.FRAMED_DESCRIPTION,
    description="The whole network was trained: on further images first, then on HAM10000 alone, small images first; "
    "what ships is the moving average of its weights.",
)
