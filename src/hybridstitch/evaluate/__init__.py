"""Scores of pictures, always with an interval and the number of pictures beside them."""
