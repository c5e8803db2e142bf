"""FLUX.2 dev with klein as its small model.

klein has a text encoder of its own, so the small *pipeline* is given, and every prompt is encoded for both. dev's
guidance is an input of its transformer; klein is guided by two calls, whose scale is set apart.

    python examples/flux2.py "a lighthouse in a storm"

Everything is put on one GPU: the two transformers take 67 GiB in bfloat16, and the text encoders of both come on top.
`hybridstitch doctor --pair LARGE SMALL` says how much in all. dev is gated: accept its licence on its page, then log in
with `hf auth login`. Nobody has measured yet how well these two models agree; `hybridstitch calibrate` does
(docs/pairs.md).
"""

import sys
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline

import hybridstitch

LARGE, SMALL = "black-forest-labs/FLUX.2-dev", "black-forest-labs/FLUX.2-klein-base-4B"
POLICY = "L20% H40%@0.3 S*"  # a fifth of the steps large, two fifths both, the rest small


def stitched(large: Any, small: Any, policy: str = POLICY, guidance: float | None = 4.0) -> Any:
    """Let two FLUX.2 pipelines draw as one.

    Args:
        large: dev's pipeline; stays the same object.
        small: klein's pipeline.
        policy: which model draws what.
        guidance: scale of the small model's own guidance; None where it needs none, as a distilled one.
    """
    hybridstitch.stitch(large, small=small, policy=policy)
    large.transformer.words.guidance = guidance
    return large


if __name__ == "__main__":
    large = Flux2Pipeline.from_pretrained(LARGE, dtype=torch.bfloat16)
    small = Flux2KleinPipeline.from_pretrained(SMALL, dtype=torch.bfloat16)
    pipe = stitched(large.to("cuda"), small.to("cuda"))
    prompt = sys.argv[1] if len(sys.argv) > 1 else "a lighthouse in a storm"
    pipe(prompt=prompt, num_inference_steps=50, guidance_scale=4.0).images[0].save("flux2.png")
    print(pipe.transformer.trace.summary())
