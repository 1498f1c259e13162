"""
Only predictions: which labels of the test set are wrong?
=========================================================

Sometimes there is a table of scores and nothing else: the model runs elsewhere. A score for each
class and each image is enough for the error budget, calibration, thresholds, conformal sets and
confused classes. With features (any: of the model, of a pretrained network) a second witness judges
the labels.
"""

import tempfile

import numpy as np

import sightline as sl
from sightline.audit import Evidence, make_audit

# %%
# The table
# ---------
#
# Two thousand images of four classes whose features overlap a little; the labels of sixty are wrong.
# The scores are those of a model that has seen none of them.

rng = np.random.default_rng(0)
truth = rng.integers(0, 4, 2000)
centres = rng.normal(size=(4, 16))
features = centres[truth] + rng.normal(scale=1.0, size=(2000, 16))
scores = 1.5 * (features @ centres.T - (centres**2).sum(1) / 2)
labels = truth.copy()
wrong = rng.choice(2000, 60, replace=False)
labels[wrong] = (labels[wrong] + rng.integers(1, 4, 60)) % 4

# %%
# One witness
# -----------
#
# ``sl.inspect`` makes a folder like that of any run, with its page; on the command line it is
# ``sightline inspect labels.csv --predictions scores.parquet``.

names = ("oak", "ash", "elm", "fir")
folder = tempfile.mkdtemp() + "/run"
run = sl.inspect(labels, probabilities=scores, class_names=names, out=folder, verbose=False)
print(f"{run.audit.accuracy.value:.1%} agree with their label; of those that do not, the likely causes:")
run.audit.table("causes")[["cause", "count", "share"]]

# %%
# Every image has a place in the list of doubtful labels, and its top is good. But a model alone calls
# no label wrong: its confident contradiction is also what a hard image looks like.

doubted = run.audit.table("label_issues")["index"].to_numpy()[:60]
called = run.audit.label_issues.test.flagged
print(f"{len(set(doubted) & set(wrong))} of the first 60 are wrong; {called} are called so")

# %%
# Two witnesses
# -------------
#
# With features of a network that has not learnt from these labels, the claim is made, with an
# estimate of how far it may be trusted. Here the truth is known, so it can be checked.

predictions = sl.Predictions(scores, labels, names)
audit = make_audit(Evidence(None, predictions, features=features, frozen=features))
issues = audit.label_issues.test
flagged = [row.index for row in issues.rows if row.flagged]
right = len(set(flagged) & set(wrong))
low, high = issues.precision.interval
print(f"{issues.flagged} labels are called wrong:", end=" ")
print(f"{issues.precision.value:.0%} of them ({low:.0%} to {high:.0%})")
print(f"in truth {right} of them, or {right / len(flagged):.0%}, are wrong")

# %%
# Rows are labels, columns what the model answered.

plot = sl.plot_confusion(predictions)
