"""Wrong answers to A1 that students give, as changes of the reference; each has to lose points."""

WRONG = (
    # question, what is wrong, before, after
    (
        "q1",
        "left and right swapped",
        '"right" if x > 0 else "left"',
        '"left" if x > 0 else "right"',
    ),
    (
        "q1",
        "the voxel's first index alone",
        "affine[0, :3] @ np.asarray(voxel)",
        "affine[0, 0] * voxel[0]",
    ),
    ("q1", "the column and not the row", "affine[0, :3]", "affine[:3, 0]"),
    ("q1", "the origin is left out", " + affine[0, 3]", ""),
    ("q1", "no middle", "abs(x) <= 0.001", "abs(x) <= 0"),
    ("q1", "a middle of a millimeter", "abs(x) <= 0.001", "abs(x) <= 1"),
    ("q1", "zero is the middle", " - middle_mm", ""),
    (
        "q2",
        "negative volumes",
        "abs(np.linalg.det(affine[:3, :3]))",
        "np.linalg.det(affine[:3, :3])",
    ),
    ("q2", "cubic millimeters", " / 1000", ""),
    ("q2", "the diagonal", "np.linalg.det(affine[:3, :3])", "np.prod(np.diag(affine)[:3])"),
    (
        "q2",
        "the product of the lengths",
        "np.linalg.det(affine[:3, :3])",
        "np.prod(np.linalg.norm(affine[:3, :3], axis=0))",
    ),
    ("q2", "the background too", "label[label > 0]", "label"),
    ("q2", "tumor and kidney only", "label[label > 0]", "label[(label > 0) & (label < 3)]"),
    ("q2", "up to a label of 5", "label[label > 0]", "label[(label > 0) & (label < 6)]"),
    ("q2", "negative labels too", "label[label > 0]", "label[label != 0]"),
    (
        "q3",
        "corners on each other",
        "(np.arange(m) + 0.5) * n / m - 0.5",
        "np.arange(m) * (n - 1) / max(m - 1, 1)",
    ),
    ("q3", "no half voxel", "(np.arange(m) + 0.5) * n / m - 0.5", "np.arange(m) * n / m"),
    ("q3", "the nearest voxel", "part = (place - low)", "part = np.round(place - low)"),
    (
        "q3",
        "weights swapped",
        "volume.take(low, axis) * (1 - part) + volume.take(high, axis) * part",
        "volume.take(low, axis) * part + volume.take(high, axis) * (1 - part)",
    ),
    (
        "q3",
        "the border runs on to 0",
        "np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)",
        "np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1) * 0.999",
    ),
    (
        "q3",
        "integers stay integers",
        "volume.take(low, axis) * (1 - part) + volume.take(high, axis) * part",
        "(volume.take(low, axis) * (1 - part) + volume.take(high, axis) * part).astype("
        "volume.dtype)",
    ),
    ("q3", "the first axis only", "    return volume", "        break\n    return volume"),
    ("q4", "the grid's own DSC", "nearest(nearest(mask, shape), mask.shape)", "mask"),
    ("q4", "the intersection counts once", "2 * (mask & back)", "(mask & back)"),
    ("q4", "nothing scores 0", "else 1.0", "else 0.0"),
    ("q4", "no half voxel", "(np.arange(m) + 0.5)", "np.arange(m)"),
    ("q4", "rounded and not cut", "* n / m).astype(int)", "* n / m - 0.5).round().astype(int)"),
    ("q4", "the IoU", "total = mask.sum() + back.sum()", "total = 2 * (mask | back).sum()"),
)

# Automatic changes that change nothing that a paper could be marked down for, and why.
EQUIVALENT = {
    # No float lies on the edge.
    "q1: if abs(x) <= 0.001: → if abs(x) < 0.001:",
    # 0 was the middle.
    "q1: return 'right' if x > 0 else 'left' → return 'right' if x >= 0 else 'left'",
    # NumPy takes any negative size for the one that is left.
    "q3: part = (place - low).reshape([-1 if a == axis else 1 for a in range(3)]) → "
    "part = (place - low).reshape([-2 if a == axis else 1 for a in range(3)])",
    # Behind the last center both neighbors are the last voxel.
    "q3: place = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1) → "
    "place = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n + 1)",
}
