"""Calibration: a pair is measured once, and speed or closeness can be asked for instead of thresholds.

    recipe = calibrate(pipe, prompts)
    recipe.save("recipe.json")

conditions   how pictures are asked for, and where that holds
candidates   what is worth trying
compare      policies draw a prompt together and are compared with the large model
state        what was done, so that a killed calibration goes on
table        what is known of a candidate, and which are kept
search       rounds of drawing
winners      real calls of the best, timed
verdict      what was found, said plainly
"""

from .calibrate import calibrate

__all__ = ["calibrate"]
