"""Everyday prompts for pairs whose users gave none: faces, crowds, text, texture, night and plain backgrounds."""

PROMPTS = (
    "a portrait of an old fisherman with a grey beard, soft window light",
    "a red bicycle leaning against a white brick wall",
    "a crowded night market in the rain, neon signs, reflections on the street",
    "a bowl of ramen with a soft egg, steam, seen from above",
    "a small wooden cabin by a mountain lake at sunrise",
    "a golden retriever puppy running through tall grass",
    "a shop window with the words OPEN ALL NIGHT in blue letters",
    "an aerial view of a harbour with many small sailing boats",
)

# For how near a prompt must be to a picture drawn before: six scenes, each said in four ways that differ a little more.
RELATED = (
    "a portrait of an old fisherman with a grey beard, soft window light",
    "a portrait of an old sailor with a white beard, soft window light",
    "a portrait of an old fisherman in a yellow raincoat, evening light",
    "a portrait of a young fisherman on a boat",
    "a red bicycle leaning against a white brick wall",
    "a blue bicycle leaning against a white brick wall",
    "a red bicycle in front of a brick house",
    "a red motorbike leaning against a wall",
    "a bowl of ramen with a soft egg, steam, seen from above",
    "a bowl of noodle soup with an egg, seen from above",
    "a bowl of ramen and chopsticks on a wooden table",
    "a plate of spaghetti on a wooden table",
    "a small wooden cabin by a mountain lake at sunrise",
    "a small wooden cabin by a mountain lake at night",
    "a stone house by a mountain lake",
    "a wooden cabin in a snowy forest",
    "a golden retriever puppy running through tall grass",
    "a golden retriever sitting in tall grass",
    "a brown puppy running on a beach",
    "a white cat sitting in tall grass",
    "an aerial view of a harbour with many small sailing boats",
    "an aerial view of a harbour with fishing boats at sunset",
    "a harbour with many small sailing boats, seen from the quay",
    "a single sailing boat on a calm sea",
)
