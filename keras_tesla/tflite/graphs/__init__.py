"""Rewriting converted graphs so that percentages share weights and one file."""
