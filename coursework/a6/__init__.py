"""A6, Verdict: from answers in windows to a label map."""
