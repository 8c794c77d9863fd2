"""Pruning, export to ONNX, int8, and the packing of a bundle."""
