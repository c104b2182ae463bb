"""Narrowing: which prefix of each tensor is needed at a percentage, and running just that."""
