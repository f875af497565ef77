"""Wrong answers to A5 that students give, as changes of the reference; each has to lose points."""

WRONG = (
    # question, what is wrong, before, after
    (
        "q1",
        "the change shows at once",
        "        used.append(rate)\n        if loss < best - delta:",
        "        if loss < best - delta:",
    ),
    (
        "q1",
        "better than the last, not the best",
        "best, waited = loss, 0\n        else:",
        "best, waited = loss, 0\n        else:\n            best = loss",
    ),
    ("q1", "delta is ignored", "best - delta", "best"),
    ("q1", "delta or more is enough", "loss < best - delta", "loss <= best - delta"),
    (
        "q1",
        "the count goes on after a fall",
        "max(rate * factor, lowest), 0",
        "max(rate * factor, lowest), waited",
    ),
    (
        "q1",
        "falls at every epoch from then on",
        "if waited == patience:\n                rate, waited = max(rate * factor, lowest), 0",
        "if waited >= patience:\n                rate = max(rate * factor, lowest)",
    ),
    ("q1", "waits one more", "waited == patience", "waited == patience + 1"),
    ("q1", "not in a row", "best, waited = loss, 0", "best = loss"),
    ("q1", "no lowest rate", "max(rate * factor, lowest)", "rate * factor"),
    ("q1", "subtracts", "rate * factor", "rate - factor * rate"),
    ("q2", "equal is progress", "loss < best", "loss <= best"),
    ("q2", "waits one more", "epoch - kept == patience", "epoch - kept > patience"),
    ("q2", "the last is kept", "return kept, epoch", "return epoch, epoch"),
    ("q2", "epochs from 0", "start=1", "start=0"),
    ("q2", "never stops", "epoch - kept == patience", "False"),
    ("q2", "nan is progress", "if loss < best:", "if not loss >= best:"),
    ("q2", "nan is left out", "elif epoch", "elif loss == loss and epoch"),
    (
        "q2",
        "better than the last, not the best",
        "            return kept, epoch\n",
        "            return kept, epoch\n        best = min(loss, 9) if loss == loss else best\n",
    ),
    ("q3", "the step is not in the state", 'state["n"], state["m"]', '0, state["m"]'),
    (
        "q3",
        "m is not in the state",
        'state["n"], state["m"], state["v"]',
        'state["n"], np.zeros_like(weights), state["v"]',
    ),
    (
        "q3",
        "v is not in the state",
        'state["n"], state["m"], state["v"]',
        'state["n"], state["m"], np.zeros_like(weights)',
    ),
    ("q3", "starts anew each time", "if state is None:", "if True:"),
    (
        "q3",
        "the state is changed in place",
        "m = 0.9 * m + 0.1 * g",
        "m *= 0.9\n        m += 0.1 * g",
    ),
    ("q3", "no correction of m", "(m / (1 - 0.9**n))", "m"),
    ("q3", "no correction of v", "v / (1 - 0.999**n)", "v"),
    ("q3", "the betas swapped", "m = 0.9 * m + 0.1 * g", "m = 0.999 * m + 0.001 * g"),
    ("q3", "no square", "g**2", "abs(g)"),
    ("q3", "up and not down", "weights - rate", "weights + rate"),
    (
        "q3",
        "the weights are changed in place",
        "weights = weights - rate * step",
        "weights -= rate * step",
    ),
    ("q3", "an epsilon of a different size", "1e-7", "1e-3"),
)

# Automatic changes that change nothing that a paper could be marked down for, and why.
EQUIVALENT = {
    # The first epoch is always better, and the count starts there.
    "q1: used, best, waited = ([], float('inf'), 0) → used, best, waited = ([], float('inf'), 1)",
}
