"""Does a calibrated pair keep its word, and is what it serves the best there is? See `__main__`."""
