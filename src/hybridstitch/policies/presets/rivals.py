"""Methods of other papers, and the small model alone: each as a program of its own."""

from ..methods import Schedule, SmallOnly
from .setting import Preset

RIVALS = (
    Preset(name="small", policy=SmallOnly(), source="the small model alone; the paper gives no figures for it"),
    Preset(
        name="modm",
        policy=Schedule("L20% S*"),
        source="MoDM's order as the HybridStitch paper tells it: the large model first; the share is ours",
    ),
    Preset(
        name="flowblending",
        policy=Schedule("L20% S* L15%"),
        source="FlowBlending (arXiv 2512.24724), large-small-large: a third of the steps large, which gives its 57 % "
        "fewer operations on a 2B/13B pair; the split between both ends is ours",
    ),
    Preset(
        name="region-adaptive",
        policy=Schedule("L14% R28%@0.5 L R25%@0.5 L R*@0.5", signal="latent"),
        source="RAS (arXiv 2502.10389) on the large model alone, as its Stable Diffusion 3 script runs 28 steps: half "
        "of the tokens from step 4 on, all of them at steps 12 and 20; chosen by the size of their last prediction "
        "(the denoised estimate of a repeated prediction does not change, so it would choose the same ones for ever)",
    ),
)
