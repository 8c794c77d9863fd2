"""Learning together: what a device computes in a round, and what a server makes of the mean; this loads nothing.

layout       which parameters a plan trains, in which order they lie in an update
candidates   what a step scores against: drawn from a seed of each device
start        the values that a device starts from
content      which rows of the feature tables make up an item
train_step   the gradient of one shopper's loss, in ONNX Runtime
trainer      local steps over the shopper's histories: one update
fedadam      the server's optimizer
master       everything trainable in float32
release      the next bundle from the master

Clipping, rotating and rounding an update come after it, in `hushrec_privacy`.
"""
