"""A client of `hybridstitch serve`, with OpenAI's own package: a picture as it emerges, then the same faster.

pip install openai
hybridstitch serve &
python examples/server_client.py "a robot above a pizza at sunset"
"""

import base64
import sys
from pathlib import Path
from typing import Any

import openai


def watch(client: openai.OpenAI, prompt: str, out: Path, **ours: Any) -> list[Path]:
    """Draw, and save every picture the server sends: the small model's sketch, the picture half way, the picture.

    Args:
        client: of the server.
        prompt: what to draw.
        out: a folder.
        ours: fields that OpenAI's API has not, such as `seed`, `policy` or `num_inference_steps`.
    """
    events = client.images.generate(prompt=prompt, stream=True, partial_images=2, extra_body={"seed": 0, **ours})
    saved = []
    for event in events:
        saved.append(out / f"{len(saved)}.png")
        saved[-1].write_bytes(base64.b64decode(event.b64_json))
    return saved


def at_speed(client: openai.OpenAI, prompt: str, speed: float, **ours: Any) -> dict[str, Any]:
    """Draw at a speed, and give what the server says of it: policy, steps, seconds, who drew how many steps.

    Args:
        client: of the server, which has a recipe (the miniature pair brings one).
        prompt: what to draw.
        speed: how many times as fast as the large model.
        ours: as in `watch`.
    """
    drawn = client.images.generate(prompt=prompt, extra_body={"speed": speed, **ours})
    return drawn.model_extra["hybridstitch"] if drawn.model_extra else {}


if __name__ == "__main__":
    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none is asked for")
    prompt = sys.argv[1] if len(sys.argv) > 1 else "a robot above a pizza at sunset"
    print(*watch(client, prompt, Path()), sep="\n")
    print(at_speed(client, prompt, 8.0))
