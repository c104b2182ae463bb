"""Quantization-aware training: int8 networks that share one set of weights."""
