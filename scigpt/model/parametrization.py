"""How initial weights, branches and learning rates change with width and depth, so that the best rate of a small model serves a large one.

In width this is muP (Yang et al., arXiv:2203.03466, table 3; with Adam): a matrix that sums over the width has entries of size
`width^-1/2` at the start and a rate that falls as `1 / width`; the head starts at zero; queries and keys are normed. In depth it is
CompleteP (Dey et al., arXiv:2505.01618): what a block adds is multiplied by `1 / depth`, and rates stay. The weight decay of a step, rate
times decay, is the same for every width. All is measured from the reference size `nano`, and smaller models are treated like it.
"""

from __future__ import annotations

REFERENCE_WIDTH, REFERENCE_DEPTH = 128, 4


def learning_rate_scale(width: int) -> float:
    """Factor on the learning rate of matrices that sum over the width."""
    return min(1.0, REFERENCE_WIDTH / width)


def residual_share(depth: int) -> float:
    """Factor on what attention and MLP of a block add to the stream."""
    return min(1.0, REFERENCE_DEPTH / depth)


def residual_spread(depth: int, inputs: int) -> float:
    """Standard deviation of the weights with which they add to it: three sums in each of the blocks of the reference depth make the stream
    about as large as its tokens, and `residual_share` keeps deeper models there."""
    return (3 * min(depth, REFERENCE_DEPTH) * inputs) ** -0.5
