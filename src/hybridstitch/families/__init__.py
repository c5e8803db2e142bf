"""Transformer families: where a transformer's tokens enter, attend and leave.

family    what is known of a class, and what drawing with one takes
layout    which axes of a latent carry tokens; rows: taking some images and branches of a call
attached  processors and hooks on a transformer; lent: the memory that a processor is lent; rotary: RoPE of some tokens
packed    attached, where tokens are given, behind text; hooked: where they enter and leave inside the forward
known     the table that picks one; one file each for those that draw parts of a picture
whole     any class, for whole steps; classes: a row for each
"""
