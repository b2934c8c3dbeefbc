"""``gc.nn``: activations and losses.

Dense weights are (n_in, n_out), inputs (batch, features).  Losses take raw scores
(logits), not probabilities, and are means unless ``reduction="none"`` or ``"sum"``.
"""

from graphc.nn.activations import elu, leaky_relu, log_softmax, relu, sigmoid, softmax, softplus
from graphc.nn.losses import binary_cross_entropy, cross_entropy, hinge, l1, l2, mse

__all__ = [
    "binary_cross_entropy", "cross_entropy", "elu", "hinge", "l1", "l2", "leaky_relu", "log_softmax", "mse", "relu", "sigmoid",
    "softmax", "softplus",
]
