"""Two-Tower in torch: `fit` trains, `network` holds both towers, `samples` makes the training examples, `softmax` the loss.

`checkpoint` lets a killed fit go on; `command` runs a fit for the command line and for a retrain. Start with `fit`.
"""
