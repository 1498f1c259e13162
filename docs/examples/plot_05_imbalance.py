"""
Unequal classes: does the accuracy see the rare ones?
=====================================================

One class has twenty times as many pictures as another. The accuracy is that of the large classes;
balanced accuracy counts each class the same, and a balanced sampler makes the training do so too.
"""

import dataclasses

import numpy as np

import sightline as sl

# %%
# The data
# --------
#
# Drawn shapes, of which two classes keep a twentieth of their training pictures.

full = sl.load_data("shapes", limit=2500)
rng = np.random.default_rng(0)
rare = [full.class_names.index(name) for name in ("star", "ring")]
keep = np.isin(full.train.labels, rare, invert=True) | (rng.random(len(full.train)) < 0.05)
train = sl.Split(full.train.images[keep], full.train.labels[keep])
data = dataclasses.replace(full, train=train, truth=None)
print(dict(zip(data.class_names, np.bincount(data.train.labels).tolist(), strict=True)))

# %%
# Trained as it comes, and with each class drawn as often
# -------------------------------------------------------

predictions = {}
for sampler in ("shuffle", "balanced"):
    model = sl.create_model("speednet", data, widths=[16, 32, 64])
    schedule = sl.SCHEDULES["one_cycle"](0.2)
    sl.fit(model, data, epochs=5, batch_size=64, sampler=sampler, schedule=schedule, verbose=False)
    found = predictions[sampler] = sl.predict(model, data.test, class_names=data.class_names)
    rare_right = found.correct[np.isin(found.labels, rare)].mean()
    print(f"{sampler}: {found.correct.mean():.1%} right, of the two rare classes {rare_right:.1%}")

# %%
# The classes one by one
# ----------------------
#
# The interval of each class is its own: few test pictures make it wide.

plot = sl.plot_class_accuracy(predictions["shuffle"])

# %%
plot_balanced = sl.plot_class_accuracy(predictions["balanced"])
