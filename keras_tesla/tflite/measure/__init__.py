"""Measuring exported files, and the report."""
