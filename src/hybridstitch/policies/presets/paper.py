"""The rows of the paper's Tables 1-3, with the figures it gives for them."""

from ..methods import HybridStitch, LargeOnly, TStitch
from ..policy import Policy
from ..srdiffusion import SRDiffusion
from .setting import PaperRow, Preset, Setting

PAPER = Setting(  # section 4.1; the scheduler is the models' own, the guidance is not stated
    large="stabilityai/stable-diffusion-3.5-large",
    small="stabilityai/stable-diffusion-3-medium-diffusers",
    size=(768, 768),
    steps=50,
    scheduler="FlowMatchEulerDiscreteScheduler",
)
_THRESHOLDS = {10: (0.3, 0.25), 20: (0.35, 0.25), 30: (0.5, 0.3), 40: (0.4, 0.3)}  # section 4.1, by mask in percent
_SEVERAL = {(20, 10): (0.5, 0.3, 0.2), (30, 10): (0.5, 0.3, 0.2), (40, 30): (0.6, 0.5, 0.3)}  # section 4.4
_FIGURES = {  # Tables 1-3: FID, CLIP, LPIPS, seconds, speedup
    "large": (27.64, 31.81, None, 20.72, 1.0),
    "t-stitch": (31.87, 32.01, 0.72, 14.74, 1.41),
    "sr-diffusion": (31.67, 31.89, 0.69, 13.37, 1.55),
    "hybridstitch-10": (31.03, 31.82, 0.35, 12.03, 1.72),
    "hybridstitch-20": (30.34, 31.81, 0.37, 12.21, 1.7),
    "hybridstitch-30": (30.43, 31.84, 0.42, 11.31, 1.83),
    "hybridstitch-40": (30.96, 31.83, 0.38, 12.01, 1.72),
    "hybridstitch-10-static": (31.91, 31.81, 0.37, 11.68, 1.77),
    "hybridstitch-20-static": (31.55, 31.84, 0.39, 11.15, 1.85),
    "hybridstitch-30-static": (31.88, 31.79, 0.45, 9.95, 2.08),
    "hybridstitch-40-static": (32.08, 31.80, 0.41, 10.73, 1.93),
    "hybridstitch-10-full-large": (31.14, 31.83, 0.34, 13.82, 1.5),
    "hybridstitch-20-full-large": (31.19, 31.84, 0.35, 13.57, 1.52),
    "hybridstitch-30-full-large": (31.32, 31.84, 0.39, 12.38, 1.67),
    "hybridstitch-40-full-large": (31.27, 31.83, 0.36, 12.35, 1.68),
    "hybridstitch-20-10": (30.11, 31.80, 0.42, 11.85, 1.75),
    "hybridstitch-30-10": (30.02, 31.79, 0.41, 12.49, 1.66),
    "hybridstitch-40-30": (30.87, 31.82, 0.43, 11.43, 1.81),
}


def _of_the_paper(name: str, policy: Policy, table: str) -> Preset:
    """A row of Tables 1-3."""
    fid, clip, lpips, seconds, speedup = _FIGURES[name]
    row = PaperRow(fid=fid, clip=clip, lpips=lpips, latency_seconds=seconds, speedup=speedup)
    made_for = PAPER if policy.adaptive else None
    return Preset(name=name, policy=policy, source=f"HybridStitch, {table}", made_for=made_for, paper=row)


TABLE_1 = (
    _of_the_paper("large", LargeOnly(), "Table 1"),
    _of_the_paper("t-stitch", TStitch(0.4), "Table 1"),
    _of_the_paper("sr-diffusion", SRDiffusion(threshold=0.005), "Table 1"),
    *(
        _of_the_paper(f"hybridstitch-{percent}", HybridStitch(masks=(percent / 100,), thresholds=thresholds), "Table 1")
        for percent, thresholds in _THRESHOLDS.items()
    ),
)
TABLE_2 = (  # these decide for themselves, as the paper's did; to change one thing only, replay the stages of a trace
    *(
        _of_the_paper(
            f"hybridstitch-{percent}-static",
            HybridStitch(masks=(percent / 100,), thresholds=thresholds, update_mask=False),
            "Table 2, StaticMask",
        )
        for percent, thresholds in _THRESHOLDS.items()
    ),
    *(
        _of_the_paper(
            f"hybridstitch-{percent}-full-large",
            HybridStitch(masks=(percent / 100,), thresholds=thresholds, masked_compute=False),
            "Table 2, FullLarge",
        )
        for percent, thresholds in _THRESHOLDS.items()
    ),
)
TABLE_3 = tuple(
    _of_the_paper(
        f"hybridstitch-{first}-{second}",
        HybridStitch(masks=(first / 100, second / 100), thresholds=thresholds),
        "Table 3",
    )
    for (first, second), thresholds in _SEVERAL.items()
)
