"""The paper's tables and figures on any pair: methods, drawing, latency, scores, and what they say.

settings    what is reproduced, and where its files lie
implied     the switch steps that the paper's latencies imply
thresholds  thresholds of this pair that give them
methods     the rows of Tables 1-3, and their honest rivals
equipment   what a process that draws works with; scorer what scores its pictures
drawing     every row's pictures, each distinct step drawn once
raw         pictures and their rows on the disk
prices      what strokes cost on this machine; timing what whole calls take
results     all of that, read back; scoring, tables, pareto, questions and report say what it means
figures/    one function a figure: (results, crew) → the files it wrote
"""
