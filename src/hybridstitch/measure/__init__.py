"""A pair, measured: what differs, what it costs, and how sure that is.

lockstep   many policies draw one prompt, each distinct step once
profile    D, f(M) and the models' difference along a run; seconds of strokes
price      seconds of a whole call
intervals  how sure a mean, a share or a paired difference is
"""
