"""``gc.nn``: activations, losses, convolutions, pooling, attention.

Dense weights are (n_in, n_out), inputs (batch, features); images are (batch, channels, *space), kernels
(out, in/groups, *window).  Losses take raw scores (logits), not probabilities, and are means
unless ``reduction="none"`` or ``"sum"``.
"""

from graphc.nn.activations import elu, leaky_relu, log_softmax, relu, sigmoid, softmax, softplus
from graphc.nn.attention import attention
from graphc.nn.convolution import conv, conv_transpose
from graphc.nn.losses import binary_cross_entropy, cross_entropy, hinge, l1, l2, mse
from graphc.nn.pooling import avg_pool, lp_pool, max_pool

__all__ = [
    "attention", "avg_pool", "binary_cross_entropy", "conv", "conv_transpose", "cross_entropy", "elu", "hinge", "l1", "l2", "leaky_relu",
    "log_softmax", "lp_pool", "max_pool", "mse", "relu", "sigmoid", "softmax", "softplus",
]
