"""The float32 weights of a model, and how they become the int8 files of a bundle; importing this loads nothing else.

encoder      the encoder's weights as plain arrays, and what they compute
tensors      the arrays of encoder.bin: rearranged, rounded
calibration  what matrices and item table are multiplied with
rounding     int8 that keeps products
packed       from weights and item vectors to encoder.bin and items.bin
arrays       several arrays in one file, each where the manifest says

NumPy only: a shop makes its first bundle with it, and a server each later release. No device needs it to recommend.
"""
