"""Two models in the seats of an unmodified diffusers pipeline.

stitched    the first seat: the transformer that the pipeline calls
observer    the second seat: the scheduler's steps
stitching   opening, checking, stitching and unstitching
prepared    both models made ready as the engine says; shelf puts the large one away
memory      what a pair needs, read before anything is loaded
"""
