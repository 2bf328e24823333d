"""The published recipe, from our start weights, on the split by lesion, at 160 px.

    python -m training train published

EfficientNetB1, global average pooling, softmax of 7; shifts, shear and flips; Adam from 1e-3, categorical
cross-entropy; the rate is divided by ten when val loss has not improved for 3 epochs. The backbone is frozen for 15
epochs; then the whole network trains for 4, while the rate falls to 1e-8. This configuration is shorter: 160 px instead
of 240; the frozen epochs use cached features, so they have no augmentation; the last four see 3,200 images each.

Cost: about 15 minutes on two idle cores. Expected: an accuracy of 0.745 on the lesion-disjoint test split. The
publication reports 0.843 on a random split by image, from the published ImageNet weights.
"""

from training import augment
from training.config import Config, Finetune, Head, Phase

PLAN = Finetune(
    phases=(Phase(160, 4),),
    head=Head(epochs=15, patience=15, batch=32, rate=1e-3, penalty=0.0, plateau_patience=3),
    rate=1e-3,
    final_rate=1e-8,
    fall="exponential",
    warmup_epochs=0.0,
    weight_decay=0.0,
    label_smoothing=0.0,
    dropout=0.0,
    class_balance=0.0,
    average_decay=0.0,
    sharp_share=0.0,
    epoch_images=3200,
    augmentation="published",
)
CONFIG = Config(
    name="published",
    size=160,
    start="shared",
    plan=PLAN,
    augmentation=augment.PUBLISHED_DESCRIPTION,
    description="The published recipe, shortened: 160 px, frozen epochs without augmentation, four epochs of 3,200.",
)
