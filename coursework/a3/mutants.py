"""Wrong answers to A3 that students give, as changes of the reference; each has to lose points."""

WRONG = (
    # question, what is wrong, before, after
    ("q1", "kidney is label 1 only", "predicted > 0, truth > 0", "predicted == 1, truth == 1"),
    ("q1", "the IoU", "/ total if total", "/ (2 * total - 2 * np.count_nonzero(a & b)) if total"),
    (
        "q1",
        "the intersection counts once",
        "2 * np.count_nonzero(a & b)",
        "np.count_nonzero(a & b)",
    ),
    ("q1", "an empty region scores 1", "else empty", "else 1"),
    ("q1", "an empty region scores 0", "else empty", "else 0"),
    ("q1", "empty if one is empty", "if total else", "if a.any() and b.any() else"),
    ("q1", "accuracy", "2 * np.count_nonzero(a & b) / total", "np.mean(a == b)"),
    ("q1", "the sum and not the mean", "(whole + tumor) / 2", "whole + tumor"),
    ("q2", "always together", "(0, 1, 2, 3) if together else (1, 2, 3)", "(0, 1, 2, 3)"),
    ("q2", "positive", "loss = -(2", "loss = (2"),
    (
        "q2",
        "channels are averaged",
        "loss.sum() if together else loss.sum(axis=1).mean()",
        "loss.mean()",
    ),
    ("q2", "patches are added", "loss.sum(axis=1).mean()", "loss.sum()"),
    ("q2", "no s above", "2 * both + s", "2 * both"),
    ("q2", "no s below", "(total + s)", "total"),
    ("q2", "squares below", "prob.sum(axis=axes) +", "(prob**2).sum(axis=axes) +"),
    ("q2", "channels share their sums", "(0, 1, 2, 3) if", "(0, 1, 2, 3, 4) if"),
    ("q3", "sums in 16 bits", "prob.astype(np.float64), truth.astype(np.float64)", "prob, truth"),
    ("q3", "the product in 16 bits", "(p * t).sum()", "(prob * truth).astype(float).sum()"),
    (
        "q3",
        "sums in 16 bits, converted later",
        "total = p.sum() + t.sum()",
        "total = float(prob.sum(dtype=np.float16)) + float(truth.sum(dtype=np.float16))",
    ),
    ("q3", "what is tiny scores 0", "if total > 0", "if total > 0.02 else 0.0 if total > 0"),
    ("q3", "nothing scores 0", "else 1.0", "else 0.0"),
    ("q3", "a constant below", "/ total)", "/ (total + 1))"),
    ("q4", "voxels in place of mm", " * np.asarray(spacing_mm)", ""),
    ("q4", "spacing back to front", "np.asarray(spacing_mm)", "np.asarray(spacing_mm)[::-1]"),
    (
        "q4",
        "one direction",
        "max(np.percentile(there, 95), np.percentile(back, 95))",
        "np.percentile(there, 95)",
    ),
    (
        "q4",
        "the other direction",
        "max(np.percentile(there, 95), np.percentile(back, 95))",
        "np.percentile(back, 95)",
    ),
    (
        "q4",
        "the maximum",
        "max(np.percentile(there, 95), np.percentile(back, 95))",
        "max(there.max(), back.max())",
    ),
    (
        "q4",
        "the mean of both",
        "max(np.percentile(there, 95), np.percentile(back, 95))",
        "(np.percentile(there, 95) + np.percentile(back, 95)) / 2",
    ),
    (
        "q4",
        "both together",
        "max(np.percentile(there, 95), np.percentile(back, 95))",
        "np.percentile(np.concatenate([there, back]), 95)",
    ),
    (
        "q4",
        "the nearest voxel of the mask, not of its surface",
        "there, back = distances.min(axis=1), distances.min(axis=0)",
        """where = [np.argwhere(m) * np.asarray(spacing_mm) for m in (a, b)]
    there, back = (
        np.linalg.norm(surface(m)[:, None] - w[None], axis=2).min(axis=1)
        for m, w in zip((a, b), where[::-1])
    )""",
    ),
    ("q4", "all voxels, not the surface", "mask & ~inner[1:-1, 1:-1, 1:-1]", "mask"),
    (
        "q4",
        "one empty mask is 0",
        'float("inf") if a.any() or b.any()',
        "0.0 if a.any() or b.any()",
    ),
    (
        "q4",
        "the border is no surface",
        "np.roll(np.pad(mask, 1), step, axis)",
        'np.roll(np.pad(mask, 1, mode="edge"), step, axis)',
    ),
)

# Automatic changes that change nothing that a paper could be marked down for, and why.
EQUIVALENT: set[str] = set()
