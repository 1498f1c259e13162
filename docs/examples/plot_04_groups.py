"""
A manifest with groups: is the accuracy that of new patients?
=============================================================

Ten pictures of each patient, split at random: the model has seen every patient, and learns the
patient instead of the disease. A split by group says what new patients will see. Both accuracies
are measured here.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import sightline as sl

# %%
# The table
# ---------
#
# Forty patients; each has a background colour of its own, and the sign of the disease is faint.

folder = Path(tempfile.mkdtemp())
rng, rows = np.random.default_rng(0), []
for patient in range(40):
    ill, colour = patient % 2, rng.integers(40, 200, 3)
    for number in range(10):
        picture = np.clip(colour + rng.normal(scale=12, size=(32, 32, 3)), 0, 255)
        row, column = rng.integers(4, 20, 2)
        picture[row : row + 7, column : column + 7] += 14 if ill else -14
        name = f"{patient}_{number}.png"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name)
        rows.append({"path": name, "label": ("healthy", "ill")[ill], "patient": patient})
pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)

# %%
# Two splits of the same pictures
# -------------------------------

accuracy, kept = {}, {}
for group in ("", "patient"):
    data = sl.load_data(folder / "labels.csv", image_size=32, group=group)
    model = sl.create_model("speednet", data, widths=[16, 32, 64])
    sl.fit(model, data, epochs=12, batch_size=32, schedule=sl.SCHEDULES["one_cycle"](0.1), verbose=False)
    predictions = sl.predict(model, data.test, class_names=data.class_names)
    name = f"split by {group}" if group else "split at random"
    accuracy[name], kept[name] = predictions.correct.mean(), (data, model, predictions)
    print(f"{name}: {accuracy[name]:.1%} of {len(data.test)} test pictures")

# %%
# What it had learnt
# ------------------
#
# On patients it has not seen, the mistakes of the second model lie in whole patients: the colour
# decides.

data, model, predictions = kept["split by patient"]
by_patient = pd.Series(predictions.correct).groupby(np.asarray(data.test.groups)).mean()
print(by_patient.round(2).to_string())
plot = sl.plot_mistakes(predictions, data.test.images, limit=10)
