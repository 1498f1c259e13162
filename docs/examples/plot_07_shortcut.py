"""
A shortcut: what does the model use that it should not?
=======================================================

The pictures of one class were taken with another camera, which leaves a stamp. The model is right
on such data, and for a reason that will not hold. A heat map raises the suspicion; taking the stamp
away measures it.
"""

import numpy as np

import sightline as sl

# %%
# The data
# --------
#
# The generated shapes have a class whose training pictures bear a small mark, as planted truth.

data = sl.load_data("shapes", limit=3000)
model = sl.create_model("speednet", data, widths=[32, 64, 128])
sl.fit(model, data, epochs=6, batch_size=128, schedule=sl.SCHEDULES["one_cycle"](0.4), verbose=False)
predictions = sl.predict(model, data.test, class_names=data.class_names)
truth, marked = data.truth, data.truth.shortcut_test
name = data.class_names[truth.shortcut_class]
print(f"{predictions.correct[~marked].mean():.1%} of the pictures without a mark are right")
fooled = marked & (predictions.predicted == truth.shortcut_class)
print(f"{fooled.sum() / marked.sum():.0%} of those with it are called {name}")

# %%
# The suspicion
# -------------
#
# The pictures that were called so. The map of what speaks for this class and not for the true one is
# hottest where the mark is.

fooled = np.flatnonzero(fooled)[:5]
pictures = data.test.images[fooled]
difference = sl.explain_difference(
    model, sl.to_float(pictures), predictions.predicted[fooled], predictions.labels[fooled]
)
maps = {f"{name}, not the true class": difference.explanation}
plot = sl.plot_explanations(pictures, maps, data.class_names)

# %%
# The measurement
# ---------------
#
# The mark is painted over with the colour beside it, and nothing else changes.

top, left, bottom, right = truth.shortcut_box
cleaned = data.test.images[marked].copy()
beside = cleaned[:, top:bottom, left - 2 : left - 1]
cleaned[:, top:bottom, left:right] = beside
split = sl.Split(cleaned, data.test.labels[marked])
again = sl.predict(model, split, class_names=data.class_names)
before, after = predictions.correct[marked].mean(), again.correct.mean()
print(f"right with the mark: {before:.1%}; with the mark painted over: {after:.1%}")
