"""Every tolerance of the suite, with the reason for its size. A test never writes a number of its own."""

EXACT = 0.0
"""The same operations in the same order: bit for bit."""

TIGHT = 1e-12
"""Two float64 computations of one quantity in another order of summation."""

FLOAT32 = 2e-5
"""A float32 computation of order one against its float64 truth."""

FINITE_DIFFERENCE = 1e-6
"""Central differences in float64 with a step near 1e-5."""

CENTRED = 1e-8
"""Float64 deviations from a mean that is up to 1e4 times larger than they are: that many digits are gone."""

PRINTED = 5e-5
"""A value against a table printed with four decimals."""

DECAY_GRID = 0.06
"""Relative: what the spacing of the grid of τ leaves open in τ, p and the entropies up to three prefixes ahead."""

DECAY_GRID_ACCURACY = 1e-3
"""The same in accuracy, for entropies that are small by then."""

CORRELATION = 0.1
"""Three standard errors of a correlation of 0 estimated from 400 points, and a little."""

NEAR_ZERO_ENTROPY = 1e-5
"""Relative: what covent promises of float32 logits over a vocabulary of 151,936, down to entropies of 1e-6."""

CACHED_FORWARD = 1e-10
"""Float64 log-probs of one model with and without a key-value cache, padding and company in the batch."""

SLOPE = 0.05
"""Of a fitted power of the step size: what the next order leaves over three decades."""

CHANCE = 1e-3
"""A p-value below it is no chance. Seeds are fixed, so a test that passes once passes always."""

CORPUS_RATE = 0.02
"""Absolute: four standard errors of the mean rate of some 170 facts seen 80 times each."""

CORRELATION_GRID = 0.02
"""Relative to the width of an interval: what the spacing of the grid of correlations leaves open."""

DRAWN_SHARE = 0.01
"""Four standard errors of a share of 10 % among 20,000 draws, and a little."""

STANDARD_ERRORS = 4.0
"""How many standard errors a seeded sample mean may lie from the expectation."""

PAPER_LINES = 0.03
"""Relative: least squares on the digitised markers against the lines drawn in the paper's figure."""

SHAPE_GRID = 0.02
"""Relative: what the grids of the saturating curve leave open in its ceiling."""

ATTRIBUTION = 1e-8
"""Nats: what covent promises of the sum of an attribution's parts in float64. Adam divides by root v + 1e-8, so the
rounding of a gradient that should be 0 is multiplied by up to lr / 1e-8."""

ATTRIBUTION_FLOAT32 = 1e-5
"""Nats: the same in float32, where the weights themselves are rounded after the step."""

VERL_LOSSES = 1e-12
"""Loss and gradients of covent and of verl, or of covent and its core, on the same float64 micro-batch."""

VERL_COUNT = 1e-7
"""verl adds 1e-8 to the count of tokens (its masked mean) or of a response's tokens; covent adds nothing."""

CHUNKED = 1e-11
"""Float64 log-probs and entropies summed in tiles, some of them after a product of hidden states and LM head."""

LARGE_OFFSET = 1e-9
"""Float64 logits of 1e6 and their differences: that many digits are gone before anything is computed."""

HEAD_GRADIENT_16_BIT = 2.5e-3
"""Relative, by norm: what covent promises of the LM head's gradients for bfloat16 inputs and float32 logits; rounding
the results to bfloat16 alone leaves some 1.7e-3."""

HEAD_GRADIENT_KEPT = 6e-3
"""The same with a budget and an entry that is nearly certain, its runner-up up to 17 nats below: kept in float16, which
has steps of 2^-6 there. Errors of many states are spread over a step: 2^-6 / root 12, and the rounding to bfloat16."""

HEAD_GRADIENT_ON_PAGE = 0.1
"""Relative: two digits on a page, and a few results that another order of summation rounds the other way."""

COMPILED = 3e-6
"""Relative: float32 sums over a thousand columns in C and in torch, in another order and with another exp."""
TRL_RANKS = 1e-9
"""Float64 weights after a few steps of Adam at 1e-3, summed over ranks and micro-batches in another order. Adam divides
by root v + 1e-8, so the rounding of a gradient that should be 0 is multiplied by up to lr / 1e-8."""

BFLOAT16_GAP = 0.02
"""Nats: log-probs of a small model whose products are rounded to bfloat16 (8 bits), between two ways of batching them
or against float64."""

VERL_RANKS = 1e-6
"""Float32 weights after a few steps of Adam at 1e-3 in verl's engine, with an eps that keeps rounding small, summed
over ranks and micro-batches in another order. The engine knows no float64."""
