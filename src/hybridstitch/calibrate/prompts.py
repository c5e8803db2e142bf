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
