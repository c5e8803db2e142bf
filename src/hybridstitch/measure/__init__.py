"""A pair, measured: what differs, what it costs, and how sure that is.

lockstep   many policies draw one prompt, each distinct step once
profile    D, f(M) and the models' difference along a run
calls      a pipeline's own call, on the clock
timing     seconds of strokes, steps and calls on this machine
price      seconds of any whole call, from those
machine    what those seconds belong to
intervals  how sure a mean, a share or a paired difference is
"""
