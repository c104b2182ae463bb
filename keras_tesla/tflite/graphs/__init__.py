"""Rewriting converted subgraphs so that percentages share weights and one file."""
