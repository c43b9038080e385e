"""Which columns the lasso chooses again and again: bootstrap samples of the diabetes data, by scikit-learn's solver."""

import numpy as np
from sklearn.linear_model import lasso_path

from dlopt_course.data import load_diabetes

CODE, PACKAGES = ("dlopt_course/data.py",), ("numpy", "scikit-learn")
PENALTIES = (8.0, 1.2)  # those of lesson 6
SAMPLES = 20_000

ABOUT = """\
The 442 patients of the diabetes data are drawn anew, with replacement, and the lasso of the standardised columns is
solved for each sample. The table counts in how many samples a column had a weight other than 0, and in how many of
those a negative one. The solver is scikit-learn's, at `tol=1e-8`. This is no comparison of speed: it is the recording
against which lesson 6 holds its own 200 samples."""

NOTES = ["At scikit-learn's default tolerance the counts of rare columns are larger: weights are not yet exactly 0."]


def run(samples: int = SAMPLES, seed: int = 20240601) -> dict:
    "Draw, solve and count."
    data, rng = load_diabetes(), np.random.default_rng(seed)
    x, y = (data.x - data.x.mean(axis=0)) / data.x.std(axis=0), data.y - data.y.mean()
    chosen, negative = np.zeros((2, x.shape[1], len(PENALTIES)), dtype=int)
    for _ in range(samples):
        rows = rng.integers(0, len(x), len(x))
        centred = np.asfortranarray(x[rows] - x[rows].mean(axis=0))
        _, w, _ = lasso_path(centred, y[rows] - y[rows].mean(), alphas=PENALTIES, tol=1e-8, max_iter=100_000)
        chosen += w != 0
        negative += w < 0
    columns = ["Column", *(f"{what}, α = {a:g}" for a in PENALTIES for what in ("chosen", "negative"))]
    counts = np.stack([chosen, negative], axis=2).reshape(x.shape[1], -1).tolist()
    rows = [[name, *(f"{n:,}" for n in mine)] for name, mine in zip(data.feature_names, counts, strict=True)]
    raw = {"samples": samples, "seed": seed, "chosen": chosen.T.tolist(), "negative": negative.T.tolist()}
    title = "Which columns the lasso chooses again and again"
    return {"title": title, "about": ABOUT, "columns": columns, "rows": rows, "notes": NOTES, "raw": raw}
