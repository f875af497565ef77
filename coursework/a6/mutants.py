"""Wrong answers to A6 that students give, as changes of the reference; each has to lose points."""

WRONG = (
    # question, what is wrong, before, after
    (
        "q1",
        "the weights of an even window have one peak",
        "+ 1.0 for",
        "+ 1.0 + (np.arange(n) == n // 2) for",
    ),
    ("q1", "weights from 0", ") + 1.0", ") + 0.0"),
    (
        "q1",
        "sum in place of product",
        "axes[0][:, None, None] * axes[1][:, None] * axes[2]",
        "axes[0][:, None, None] + axes[1][:, None] + axes[2]",
    ),
    ("q1", "not divided", "return weights / weights.max()", "return weights"),
    ("q1", "divided by the sum", "weights.max()", "weights.sum()"),
    ("q1", "axes swapped", "axes[1][:, None] * axes[2]", "axes[2][:, None] * axes[1]"),
    ("q2", "a plain mean", "below[place] += weights[inside]", "below[place] += 1"),
    ("q2", "weights are not applied to answers", "(answer * weights)[inside]", "answer[inside]"),
    (
        "q2",
        "divided by the number of windows",
        "np.divide(above, below,",
        "np.divide(above, len(starts) * np.ones(shape),",
    ),
    (
        "q2",
        "nan where no window lies",
        "np.divide(above, below, out=np.zeros(shape), where=below > 0)",
        "above / below",
    ),
    ("q2", "one where no window lies", "out=np.zeros(shape)", "out=np.ones(shape)"),
    (
        "q2",
        "the last window wins",
        "above[place] += (answer * weights)[inside]",
        "above[place] = (answer * weights)[inside]",
    ),
    (
        "q2",
        "the end of a window is taken, not its start",
        "slice(0, n) for n in above",
        "slice(-n, None) for n in above",
    ),
    (
        "q2",
        "windows over the border are left out",
        "above[place] += ",
        "if above[place].shape != weights.shape: continue\n        above[place] += ",
    ),
    (
        "q3",
        "the SD of a sample",
        "variance = squares / count - mean**2",
        "variance = (squares / count - mean**2) * count / max(count - 1, 1)",
    ),
    ("q3", "the variance", "np.sqrt(np.maximum(variance, 0))", "np.maximum(variance, 0)"),
    (
        "q3",
        "needs a length",
        "for prob in maps:",
        "for prob in [maps[i] for i in range(len(maps))]:",
    ),
    ("q3", "goes through it twice", "mean = total / count", "mean = total / sum(1 for _ in maps)"),
    ("q3", "one after another", "total = total + prob", "total = (total + prob) / 2"),
    ("q4", "always 26 neighbors", "{6: 1, 18: 2, 26: 3}[connectivity]", "3"),
    ("q4", "18 are taken for 26", "18: 2", "18: 3"),
    ("q4", "6 are taken for 18", "6: 1,", "6: 2,"),
    ("q4", "high is cut at low", "return high | np", "return np"),
    ("q4", "the background touches", "components[high & low]", "components[high]"),
    (
        "q4",
        "the largest component only",
        "touched = np.unique(components[high & low])",
        "touched = np.unique(components[high & low])[-1:]",
    ),
    (
        "q4",
        "sure voxels join components of low",
        "ndimage.label(low, structure)",
        "ndimage.label(low | high, structure)",
    ),
    ("q4", "all of low", "np.isin(components, touched)", "low"),
    (
        "q4",
        "every voxel of high joins low",
        "components[high & low]",
        "ndimage.grey_dilation(components, 3)[high]",
    ),
    (
        "q4",
        "the argument is changed",
        "high | np.isin(components, touched)",
        "np.logical_or(high, np.isin(components, touched), out=high)",
    ),
    (
        "q5",
        "> in place of ≥",
        'prob >= rule["high"], prob >= low',
        'prob > rule["high"], prob > low',
    ),
    (
        "q5",
        "no branch for small tumors",
        'rule["small_low"] if small else rule["tumor_low"]',
        'rule["tumor_low"]',
    ),
    ("q5", "small is at most", "sure < rule", "sure <= rule"),
    (
        "q5",
        "small and large swapped",
        'rule["small_low"] if small else rule["tumor_low"]',
        'rule["tumor_low"] if small else rule["small_low"]',
    ),
    ("q5", "the flag is not read", ' and rule["tumor_if_none"]', ""),
    ("q5", "never all a tumor", "tumor = whole\n", "pass\n"),
    (
        "q5",
        "tumor only inside the whole",
        "np.where(tumor, 2, whole)",
        "np.where(tumor & whole, 2, whole)",
    ),
    (
        "q5",
        "an empty mask clears all",
        "label * lnet_mask if lnet_mask.any() else label",
        "label * lnet_mask",
    ),
    (
        "q5",
        "a mask that leaves nothing clears nothing",
        "if lnet_mask.any() else label",
        "if (label * lnet_mask).any() else label",
    ),
    (
        "q5",
        "whether there is a tumor is asked behind the mask",
        "return label * lnet_mask if lnet_mask.any() else label",
        """label = label * lnet_mask if lnet_mask.any() else label
    if rule["tumor_if_none"] and not (label == 2).any():
        label[label > 0] = 2
    return label""",
    ),
    (
        "q5",
        "only a sure whole region is the tumor",
        'not tumor.any() and rule["tumor_if_none"]',
        'not tumor.any() and rule["tumor_if_none"] and (whole_prob >= rule["high"]).any()',
    ),
    ("q5", "no mask", "label * lnet_mask if lnet_mask.any() else label", "label"),
    (
        "q5",
        "kidney and tumor swapped",
        "np.where(tumor, 2, whole)",
        "np.where(tumor, 1, whole * 2)",
    ),
    (
        "q5",
        "no growing",
        'return grow(prob >= rule["high"], prob >= low, 26)',
        "return prob >= low",
    ),
    ("q5", "6 neighbors", "prob >= low, 26)", "prob >= low, 6)"),
    (
        "q5",
        "empty_low is not used",
        'whole = whole_prob >= rule["empty_low"]',
        'whole = whole_prob >= rule["high"]',
    ),
    (
        "q5",
        "the tumor's empty_low is not used",
        'tumor = tumor_prob >= rule["empty_low"]',
        'tumor = tumor_prob >= rule["high"]',
    ),
)

# Automatic changes that change nothing that a paper could be marked down for, and why.
EQUIVALENT = {
    # SciPy takes an order above the dimension for the dimension.
    "q4: structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity]) → "
    "structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 4}[connectivity])",
    # Sums of a few float32 maps are within the tolerance, for maps that differ.
    "q3: prob = np.asarray(prob, float) → pass",
}
