"""Trains Two-Tower with torch.

`fit` trains; `network` holds both towers; `samples` makes the training examples; `softmax` computes
the loss; `checkpoint` lets a killed fit resume; `processes` and `torchrun` split a fit among
processes; `command` runs a fit for the command line and for a retrain.

Start with `fit`.
"""
