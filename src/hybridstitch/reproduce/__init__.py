"""The paper's tables and figures on any pair: methods, drawing, latency, scores, and what they say.

settings   what is reproduced, and where its files lie
methods    the rows of Tables 1-3 and their honest rivals
figures/   one function a figure
"""
