"""Wrong answers to A7 that students give, as changes of the reference; each has to lose points."""

WRONG = (
    # question, what is wrong, before, after
    ("q1", "a - b", "np.asarray(b) - np.asarray(a)", "np.asarray(a) - np.asarray(b)"),
    (
        "q1",
        "unpaired",
        "means = difference[draws].mean(axis=1)",
        "means = np.asarray(b)[draws].mean(axis=1) - np.asarray(a)[draws[::-1]].mean(axis=1)",
    ),
    ("q1", "90 %", "[2.5, 97.5]", "[5, 95]"),
    ("q1", "fractions for percent", "[2.5, 97.5]", "[0.025, 0.975]"),
    (
        "q1",
        "mean and SD",
        "low, high = np.percentile(means, [2.5, 97.5])",
        "low, high = means.mean() - 1.96 * means.std(), means.mean() + 1.96 * means.std()",
    ),
    ("q1", "the mean over draws", "float(difference.mean())", "float(means.mean())"),
    ("q1", "of patients, not of means", "np.percentile(means,", "np.percentile(difference,"),
    ("q1", "the wrong axis", "mean(axis=1)", "mean(axis=0)"),
    ("q2", "one side only", "np.abs((2 * bits - 1) @ d)", "(2 * bits - 1) @ d"),
    ("q2", "further and not as far", "- 1e-9", "+ 1e-9"),
    ("q2", "no care for rounding", " - 1e-9", ""),
    ("q2", "differences are left out, not turned", "(2 * bits - 1) @ d", "bits @ d"),
    ("q2", "the other share", "sums >= abs(d.sum()) - 1e-9", "sums < abs(d.sum()) - 1e-9"),
    (
        "q2",
        "the observed one is not counted",
        "float(np.mean(sums >= abs(d.sum()) - 1e-9))",
        "float((np.sum(sums >= abs(d.sum()) - 1e-9) - 1) / 2**n)",
    ),
    ("q2", "the mean and not the sum", "abs(d.sum())", "abs(d.mean())"),
    (
        "q3",
        "chosen by all",
        "means = scores[:, is_watched].mean(axis=1)",
        "means = scores.mean(axis=1)",
    ),
    (
        "q3",
        "chosen by the others",
        "scores[:, is_watched].mean(axis=1)",
        "scores[:, ~is_watched].mean(axis=1)",
    ),
    ("q3", "honest is of all", "scores[epoch, ~is_watched]", "scores[epoch]"),
    (
        "q3",
        "the last of equal epochs",
        "int(np.argmax(means))",
        "len(means) - 1 - int(np.argmax(means[::-1]))",
    ),
    ("q3", "the lowest", "np.argmax", "np.argmin"),
    ("q3", "epochs from 1", '"epoch": epoch', '"epoch": epoch + 1'),
    (
        "q3",
        "honest is the best of the others",
        "scores[epoch, ~is_watched].mean()",
        "scores[:, ~is_watched].mean(axis=1).max()",
    ),
    ("q4", "all who share get one", "first / first.sum(axis=0)", "first"),
    (
        "q4",
        "the first of equals gets it",
        "first = means >= means.max(axis=0) - 1e-9",
        "first = np.arange(len(means))[:, None] == means.argmax(axis=0)",
    ),
    (
        "q4",
        "the lowest wins",
        "means >= means.max(axis=0) - 1e-9",
        "means <= means.min(axis=0) + 1e-9",
    ),
    ("q4", "no care for rounding", " - 1e-9", ""),
    (
        "q4",
        "numbers and not shares",
        "(first / first.sum(axis=0)).mean(axis=1)",
        "(first / first.sum(axis=0)).sum(axis=1)",
    ),
    (
        "q4",
        "without drawing",
        "np.asarray(scores)[:, draws].mean(axis=2)",
        "np.repeat(np.asarray(scores).mean(axis=1)[:, None], len(draws), 1)",
    ),
    (
        "q4",
        "patient by patient",
        "np.asarray(scores)[:, draws].mean(axis=2)",
        "np.asarray(scores)[:, draws[:, 0]]",
    ),
)

# Automatic changes that change nothing that a paper could be marked down for, and why.
EQUIVALENT = {
    # No float lies on the edge of 1e-9.
    "q2: return float(np.mean(sums >= abs(d.sum()) - 1e-09)) → "
    "return float(np.mean(sums > abs(d.sum()) - 1e-09))",
    "q4: first = means >= means.max(axis=0) - 1e-09 → first = means > means.max(axis=0) - 1e-09",
    # It is an array already.
    "q3: scores = np.asarray(scores) → pass",
}
