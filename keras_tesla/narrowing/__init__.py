"""Narrowing: which channels of each tensor are needed at a percentage, and running just those."""
