"""Quantities, plans and losses: tensors in, tensors out. No config, no I/O, no logging, no global random state.

Where the next thing goes: a quantity per token or per state is a function in the file of its name; something that
divides by a count goes through `reduce`; a new published control is no core code at all but one file in
`covent.controls`.
"""
