"""EfficientNetB1 from the weights of `pretrained`, taught by `full` and `full_240`, at 128 and then 160 px.

    python -m training train pretrained             (needed first, as are `full` and `full_240`)
    python -m training train distilled
    python -m training train distilled --resume                (after a stop)

As `from_pretrained`, but most of each target comes from two finished runs, which see the same crop at 160 and 240 px.
Cost: not measured as a whole; a teacher of 160 px adds a forward pass to each step, one of 240 px about two more.
Expected: not known. Not run, except for two steps with the weights of `ham10000-b1-2` as both teachers.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="distilled",
    size=160,
    start="shared",
    continues="pretrained",
    plan=Finetune(
        phases=(Phase(128, 5), Phase(160, 4)),
        rate=4e-4,
        final_rate=5e-6,
        warmup_epochs=0.25,
        augmentation="framed",
        teachers=("full", "full_240"),
        label_smoothing=0.0,
    ),
    augmentation=augment.FRAMED_DESCRIPTION,
    description="The whole network was trained: first on further images, then only on HAM10000, taught by two networks "
    "of its kind, small images first; the bundle holds the moving average of the weights.",
)
