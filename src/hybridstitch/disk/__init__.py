"""What survives a kill, for all rooms that write.

files  a file is there whole or not at all; a line is there before work goes on
lock   a folder held by one process at a time
"""
