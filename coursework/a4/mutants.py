"""Wrong answers to A4 that students give, as changes of the reference; each has to lose points."""

WRONG = (
    # question, what is wrong, before, after
    ("q1", "z is halved from the start", "1 if step < flat else 2", "2"),
    ("q1", "z is never halved", "1 if step < flat else 2", "1"),
    ("q1", "flat counts levels", "step < flat", "step + 1 < flat"),
    ("q1", "one step too many", "range(levels - 1)", "range(levels)"),
    (
        "q1",
        "odd sizes are rounded",
        "if any(size % f for size, f in zip(shape, factor))",
        "if False",
    ),
    (
        "q1",
        "any odd size",
        "if any(size % f for size, f in zip(shape, factor))",
        "if any(size % 2 for size in shape)",
    ),
    ("q1", "without the patch", "return shapes\n", "return shapes[1:]\n"),
    ("q2", "no bias", "* after + after + 2 * after", "* after + 2 * after"),
    ("q2", "no normalization", "+ after + 2 * after", "+ after"),
    ("q2", "a flat kernel", "kernel**3", "kernel**2"),
    ("q2", "nothing is joined", "conv(before + f, f)", "conv(before, f)"),
    ("q2", "maps from below have this level's channels", "conv(before + f, f)", "conv(2 * f, f)"),
    ("q2", "the last bias is left out", "before * outputs + outputs", "before * outputs"),
    (
        "q2",
        "the last layer has the kernel, too",
        "before * outputs + outputs",
        "kernel**3 * before * outputs + outputs",
    ),
    (
        "q2",
        "the last layer sees the input's channels",
        "before * outputs + outputs",
        "inputs * outputs + outputs",
    ),
    (
        "q2",
        "one convolution a level on the way up",
        "total += conv(before + f, f) + conv(f, f)",
        "total += conv(before + f, f)",
    ),
    ("q2", "the lowest level goes up, too", "filters[-2::-1]", "filters[::-1]"),
    ("q3", "averages over all voxels", "maps[mask].mean(axis=0)", "maps.mean(axis=(0, 1, 2))"),
    ("q3", "multiplies in the mask only", "maps / (1", "maps * mask[..., None] / (1"),
    ("q3", "no ReLU", "np.maximum(mean @ w1 + b1, 0)", "mean @ w1 + b1"),
    ("q3", "no first bias", "mean @ w1 + b1", "mean @ w1"),
    ("q3", "no second bias", "hidden @ w2 + b2", "hidden @ w2"),
    ("q3", "the maximum", "maps[mask].mean(axis=0)", "maps[mask].max(axis=0)"),
    (
        "q3",
        "nan for an empty mask",
        "maps[mask].mean(axis=0) if mask.any() else np.zeros(maps.shape[-1])",
        "maps[mask].sum(axis=0) / np.float64(mask.sum())",
    ),
    (
        "q3",
        "an empty mask leaves the map",
        "hidden = ",
        "if not mask.any():\n        return maps\n    hidden = ",
    ),
    ("q3", "no sigmoid", "maps / (1 + np.exp(-(hidden @ w2 + b2)))", "maps * (hidden @ w2 + b2)"),
    ("q4", "always cut", "if not cut:", "if False:"),
    ("q4", "never cut", "if not cut:", "if True:"),
    ("q4", "cut and not cut swapped", "if not cut:", "if cut:"),
    ("q4", "the factor t is forgotten", "at_q * t", "at_q"),
    (
        "q4",
        "the tumor's error is forgotten on its way",
        "at_p + at_q * t",
        "at_p + q * (1 - q) * t",
    ),
    ("q4", "sums and not means", ".mean()", ".sum()"),
    ("q4", "T-Net sees x alone", "(at_q * (x + p)).mean()", "(at_q * x).mean()"),
    ("q4", "no slope of the sigmoid", "at_p * p * (1 - p) * x", "at_p * x"),
    ("q4", "half of the square's slope", "at_p = 2 * (p - y)", "at_p = p - y"),
    (
        "q4",
        "w and t swapped",
        "float((at_p * p * (1 - p) * x).mean()), float((at_q * (x + p)).mean())",
        "float((at_q * (x + p)).mean()), float((at_p * p * (1 - p) * x).mean())",
    ),
)

# Automatic changes that change nothing that a paper could be marked down for, and why.
EQUIVALENT: set[str] = set()
