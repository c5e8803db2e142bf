"""Write `traces/`: two pictures of the pair at once, decided by every kind of policy, masks saved and not."""

from pathlib import Path

import torch

from hybridstitch.guard import Guard
from hybridstitch.mini.opened import open_mini

POLICIES = {
    "hybrid": "hybrid-stitch:thresholds=0.9/0.2,min-large=0.2",
    "program": "L2 H2@0.3 R2@0.5 - S*",
    "reuse": "reuse:bound=0.5,of=L4 S*",
    "guarded": "hybrid-stitch:thresholds=0.9/0.2,min-large=0.2",
}

Path("traces").mkdir()
pipe = open_mini(folder="pair")
for name, policy in POLICIES.items():
    pipe.transformer.policy = policy
    pipe.transformer.guard = Guard(bands=((1e-6, 1e-6),) * 5) if name == "guarded" else None
    pipe(
        ["a big dog on a meadow", "a small cat in the snow"],
        num_inference_steps=10, guidance_scale=4.0, width=32, height=32, output_type="latent",
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    )  # fmt: skip
    pipe.transformer.trace.save(f"traces/{name}.json", masks=True)
    if name == "hybrid":
        pipe.transformer.trace.save("traces/hybrid-without-masks.json")
