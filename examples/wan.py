"""Wan 2.1: a video by 14 billion parameters where it moves most, and by 1.3 billion elsewhere.

    python examples/wan.py "a cat surfs on a wave"

Masks keep the keys and values of every token. For 81 frames of 480p that is 25 GiB for each of the two calls that
guidance makes, so the default here keeps them in the host's memory; programs without H and R need none of it.
"""

import sys
from typing import Any

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

import hybridstitch

LARGE, SMALL = "Wan-AI/Wan2.1-T2V-14B-Diffusers", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
POLICY = "L20% H30%@0.3 S*"


def stitched(pipe: Any, small: Any = SMALL, policy: str = POLICY, **engine: Any) -> Any:
    """Let a Wan pipeline draw with two models.

    Args:
        pipe: of the large model; stays the same object.
        small: a transformer, a pipeline, a hub id or a folder.
        policy: which model draws what.
        engine: options of `hybridstitch.Engine`, such as `kv_host=True`.
    """
    hybridstitch.stitch(pipe, small=small, policy=policy, engine=hybridstitch.Engine(**engine))
    return pipe


if __name__ == "__main__":
    pipe = stitched(WanPipeline.from_pretrained(LARGE, dtype=torch.bfloat16).to("cuda"), kv_host=True)
    prompt = sys.argv[1] if len(sys.argv) > 1 else "a cat surfs on a wave"
    frames = pipe(prompt, height=480, width=832, num_frames=81, num_inference_steps=50).frames[0]
    export_to_video(frames, "wan.mp4", fps=16)
    print(pipe.transformer.trace.summary())
