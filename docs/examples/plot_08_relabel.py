"""
From finding to fixing: was it worth relabelling?
=================================================

Labels that are called wrong are relabelled, the model is trained again, and the two are compared
image by image: what was fixed, what was broken, and whether it could be chance.
"""

import tempfile
from pathlib import Path

import numpy as np

import sightline as sl
from sightline.audit import Decision, Decisions, Evidence, apply_decisions, compare_predictions, make_audit
from sightline.data import fingerprint
from sightline.runs import out_of_fold

# %%
# The data and the model
# ----------------------
#
# Drawn shapes; a tenth of the training labels are wrong. The test split keeps its right ones, so that
# the comparison is fair.

shapes = sl.load_data("shapes", limit=2500)
labels = shapes.train.labels.copy()
labels[shapes.truth.wrong_labels] = shapes.truth.true_labels  # it has wrong ones of its own
train_split = sl.Split(shapes.train.images, labels)
clean = sl.Dataset("clean", shapes.class_names, train_split, shapes.test)
noisy = sl.plant(clean, Path(tempfile.mkdtemp()) / "noisy", labels=0.1)
order = np.array([noisy.class_names.index(name) for name in clean.class_names])  # a manifest sorts them
data = sl.Dataset(
    "noisy", noisy.class_names, noisy.train, sl.Split(clean.test.images, order[clean.test.labels])
)


def train(data):
    """Train for a few seconds."""
    model = sl.create_model("speednet", data, widths=[32, 64, 128])
    schedule = sl.SCHEDULES["one_cycle"](0.4)
    sl.fit(model, data, epochs=6, batch_size=128, schedule=schedule, verbose=False)
    return model


before = sl.predict(train(data), data.test, class_names=data.class_names)

# %%
# What the audit proposes
# -----------------------
#
# Each training label is judged by a model that has not seen it: four are trained, each without a
# quarter of the pictures. (On the command line: ``sightline audit RUN --folds 4``.)

recipe = sl.load_recipe("shapes-quick", ["training.epochs=8"])
unseen = out_of_fold(recipe, data, folds=4)
audit = make_audit(Evidence(data, before, out_of_fold=unseen))
issues = audit.label_issues.train
low, high = issues.precision.interval
print(f"{issues.flagged} training labels are {issues.claim}:", end=" ")
print(f"{issues.precision.value:.0%} of them ({low:.0%} to {high:.0%})")
table = audit.table("train_label_issues")
doubted = table[table["index"].isin([row.index for row in issues.rows if row.flagged])]

# %%
# On the page it is one key stroke for each, or for all of them; here they become decisions at once.

names = data.class_names
decisions = Decisions(
    fingerprint(data),
    tuple(
        Decision("train", int(row), "relabel", names[suggested])
        for row, suggested in zip(doubted["index"], doubted["suggested"], strict=True)
    ),
)
corrected = apply_decisions(data, decisions)
truth = noisy.truth
planted = dict(zip(truth.wrong_labels.tolist(), truth.true_labels.tolist(), strict=True))
still = sum(int(corrected.train.labels[row]) != true for row, true in planted.items())
spoiled = sum(decision.index not in planted for decision in decisions.decisions)
print(f"{len(planted) - still} of {len(planted)} wrong labels are right now", end=", ")
print(f"{spoiled} right ones were touched")

# %%
# Was it worth it?
# ----------------

after = sl.predict(train(corrected), data.test, class_names=names)
change = compare_predictions(before, after)
low, high = change.interval
print(f"{change.accuracy_a:.1%} became {change.accuracy_b:.1%}:", end=" ")
print(f"{100 * change.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})")
print(f"{len(change.fixed)} images fixed, {len(change.broken)} broken, p = {change.p:.3g}")

# %%
# The labels that were doubted most, with what was proposed.

captions = [f"{names[row.label]} → {names[row.suggested]}" for row in doubted[:10].itertuples()]
plot = sl.plot_images(data.train.images[doubted["index"].to_numpy()[:10]], captions)
