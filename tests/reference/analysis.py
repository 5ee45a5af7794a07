"""Error rates, confidence intervals and paired tests for two classifiers, by scikit-learn, statsmodels and scipy.

Writes fixtures/analysis.json. Needs numpy, scipy, statsmodels and scikit-learn.
"""

import numpy as np
from scipy.stats import binomtest, norm
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from hashed import FIXTURES, write_json

IMAGES, CLASSES = 60, 8
# Posteriors are multiples of 1/UNIT, so they are exact in float32 and sum to exactly 1.
UNIT = 1024


def wilson():
    """Wilson score intervals (95 %) for `wrong` errors out of `n`."""
    cases = [(0, 1), (1, 1), (0, 2), (2, 2), (1, 3), (0, 4), (4, 4), (0, 10), (20, 20), (30, 100), (381, 1000)]
    cases += [(49_999, 50_000), (12_345, 50_000), (1, 50_000), (0, 50_000)]
    rows = []
    for wrong, n in cases:
        low, high = proportion_confint(wrong, n, alpha=0.05, method="wilson")
        rows.append({"wrong": wrong, "n": n, "low": float(low), "high": float(high)})
    return rows


def paired(n, first, second):
    """Exact McNemar test and interval; in `first` (`second`) of `n` pairs only the first (second) network is wrong."""
    p = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    table = [[0, first], [second, n - first - second]]
    if first + second:
        assert abs(mcnemar(table, exact=True).pvalue - p) <= 1e-9 * p
    # Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data".
    p12, p21 = (first + 1) / (n + 2), (second + 1) / (n + 2)
    half = norm.ppf(0.975) * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    low, high = max(p12 - p21 - half, -1.0), min(p12 - p21 + half, 1.0)
    return {
        "n": n, "first": first, "second": second, "difference": (first - second) / n,
        "low": float(low), "high": float(high), "p": float(min(p, 1.0)),
    }  # fmt: skip


def posteriors(rng, labels, skill):
    """Integers [IMAGES, CLASSES]; each row sums to UNIT and has no ties."""
    rows = []
    while len(rows) < IMAGES:
        scores = rng.normal(size=CLASSES) * 1.5
        scores[labels[len(rows)]] += skill
        row = np.floor(UNIT * np.exp(scores) / np.exp(scores).sum()).astype(int)
        row[row.argmax()] += UNIT - row.sum()
        # scikit-learn resolves ties differently, and log(0) is not finite.
        if len(set(row)) == CLASSES and row.min() > 0:
            rows.append(row)
    return np.stack(rows)


def network(values, labels):
    """Top-k errors, log loss and confusion matrix of one network."""
    p, classes = values / UNIT, np.arange(CLASSES)
    assert (p.sum(axis=1) == 1).all()
    wrong = lambda k: int(len(labels) - top_k_accuracy_score(labels, p, k=k, labels=classes, normalize=False))
    of_class = lambda c, k: int((np.argsort(-p[labels == c], axis=1)[:, :k] != c).all(axis=1).sum())
    confusion = confusion_matrix(labels, p.argmax(axis=1), labels=classes)
    assert (confusion != confusion.T).any()
    return {
        "posteriors": values.ravel().tolist(),
        "wrong": [wrong(k) for k in range(1, CLASSES)],
        "loss": float(log_loss(labels, p, labels=classes)),
        "confusion": confusion.ravel().tolist(),
        "class_top1_wrong": [of_class(c, 1) for c in classes],
        "class_top5_wrong": [of_class(c, 5) for c in classes],
    }


def comparison(first, second, labels, k):
    """Compares the top-`k` errors of two networks."""
    wrong = lambda values: (np.argsort(-values, axis=1)[:, :k] != labels[:, None]).all(axis=1)
    a, b = wrong(first), wrong(second)
    return paired(len(labels), int((a & ~b).sum()), int((b & ~a).sum()))


def main():
    rng = np.random.default_rng(1409)
    # Class 7 has no image.
    labels = rng.integers(0, CLASSES - 1, size=IMAGES)
    first, second = posteriors(rng, labels, 0.4), posteriors(rng, labels, 1.6)
    pairs = [(1, 1, 0), (1, 0, 1), (3, 3, 0), (10, 0, 0), (10, 0, 5), (40, 3, 12), (40, 12, 3), (100, 10, 10)]
    pairs += [(1000, 400, 480), (10_000, 1300, 1210), (20_000, 4400, 4100), (20_000, 4100, 4800)]
    write_json(
        FIXTURES / "analysis.json",
        {
            "unit": UNIT,
            "classes": CLASSES,
            "wilson": wilson(),
            "paired": [paired(*pair) for pair in pairs],
            "labels": labels.tolist(),
            "first": network(first, labels),
            "second": network(second, labels),
            "top1": comparison(first, second, labels, 1),
            "top5": comparison(first, second, labels, 5),
        },
    )


if __name__ == "__main__":
    main()
