"""Wrong answers to A2 that students give, as changes of the reference; each has to lose points."""

WRONG = (
    # question, what is wrong, before, after
    ("q1", "rounds down", "-(-room // (w - o))", "room // (w - o)"),
    ("q1", "one window too many", "steps = -(-room // (w - o))", "steps = room // (w - o) + 1"),
    ("q1", "a stride apart, the last moved back", "i * room // steps", "min(i * (w - o), room)"),
    ("q1", "no overlap", "// (w - o)", "// w"),
    ("q1", "the last window is left out", "range(steps + 1)", "range(steps)"),
    (
        "q1",
        "z fastest",
        "for z in axes[0] for y in axes[1] for x in axes[2]",
        "for x in axes[2] for y in axes[1] for z in axes[0]",
    ),
    ("q1", "a large window has no start", "else [0]", "else []"),
    ("q2", "every tumor voxel has the fraction", "fraction / count,", "fraction,"),
    (
        "q2",
        "the shares are swapped",
        "fraction / count, (1 - fraction) /",
        "(1 - fraction) / count, fraction /",
    ),
    ("q2", "kidney counts as tumor", "label == 2", "label > 0"),
    ("q2", "others are divided by all", "(tumor.size - count)", "tumor.size"),
    ("q2", "no rule without tumor", "if count == 0 or", "if"),
    ("q2", "no rule without others", "if count == 0 or count == tumor.size", "if count == 0"),
    (
        "q2",
        "all alike without background",
        "if count == 0 or",
        "if not (label == 0).any() or count == 0 or",
    ),
    (
        "q2",
        "all zero without tumor",
        "np.full(tumor.shape, 1 / tumor.size)",
        "np.zeros(tumor.shape)",
    ),
    ("q3", "scans are dealt, not patients", "setdefault(patient, [])", "setdefault(scan, [])"),
    ("q3", "alphabetical only", "(-len(scans[p]), p)", "p"),
    ("q3", "fewest scans first", "(-len(scans[p]), p)", "(len(scans[p]), p)"),
    ("q3", "ties in order of the list", "(-len(scans[p]), p)", "-len(scans[p])"),
    ("q3", "one after another", "min(dealt, key=len)", "dealt.append(dealt.pop(0)) or dealt[-1]"),
    ("q3", "to the largest fold", "min(dealt, key=len)", "max(dealt, key=len)"),
    ("q3", "not sorted", "sorted(fold) for fold", "fold[::-1] for fold"),
    ("q4", "twice in a fold is a leak", "set()).add(number)", "[]).append(number)"),
    (
        "q4",
        "scans only",
        "sorted(p for p, places in where_patient.items() if len(places) > 1)",
        "[]",
    ),
    (
        "q4",
        "patients only",
        "sorted(s for s, places in where_scan.items() if len(places) > 1)",
        "[]",
    ),
    ("q4", "nothing is missing", "sorted(set(patients) - set(where_scan))", "[]"),
    ("q4", "in more than two folds", "len(places) > 1", "len(places) > 2"),
    ("q4", "in two folds and no more", "len(places) > 1", "len(places) == 2"),
    (
        "q4",
        "scans in two folds and no more",
        "where_scan.items() if len(places) > 1",
        "where_scan.items() if len(places) == 2",
    ),
    (
        "q4",
        "each fold and the next one",
        "len(places) > 1",
        "any((n + 1) % len(folds) in places for n in places)",
    ),
    (
        "q4",
        "what is missing, only where nothing else is found",
        "sorted(set(patients) - set(where_scan))",
        "sorted(set(patients) - set(where_scan)) if max(map(len, where_patient.values())) < 2"
        " else []",
    ),
    (
        "q4",
        "patients are missing, not scans",
        "set(patients) - set(where_scan)",
        "set(patients.values()) - set(where_patient)",
    ),
)

# Automatic changes that change nothing that a paper could be marked down for, and why.
EQUIVALENT: set[str] = set()
