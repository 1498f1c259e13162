"""
My folder: what does a model get wrong on it, and is it the model?
==================================================================

Pictures in a folder, a class for each subfolder; no network of one's own, no GPU. A small
pretrained network turns each picture into a vector, a linear head is fitted to the vectors, and
what it finds odd is worth a look: here, labels that are wrong.
"""

# %%
# The folder
# ----------
#
# So that this page needs no download, the folder is made here of drawn shapes, 6 % of whose labels
# are wrong. Of yours, all that is needed is its name: ``sl.load_data("photos/", image_size=224)``.

import tempfile
from pathlib import Path

import numpy as np

import sightline as sl
from sightline.audit import Evidence, make_audit

folder = Path(tempfile.mkdtemp()) / "photos"
sl.plant(sl.load_data("shapes", limit=500), folder, labels=0.06)
data = sl.load_data(folder, image_size=64)
print(len(data.train), "training and", len(data.test), "test pictures of", data.num_classes, "classes")

# %%
# The model
# ---------
#
# The features are computed once and kept on disk. The probabilities of a training picture come from a
# head that was fitted without it, so they may judge its label.

model = sl.create_model("efficientnet_lite0", data)
found = sl.probe(model, data)
print(f"test accuracy {found.predictions.correct.mean():.1%}, by labels some of which are wrong")

# %%
# What to fix first
# -----------------

audit = make_audit(Evidence(data, found.predictions, out_of_fold=found.out_of_fold.probabilities))
audit  # noqa: B018

# %%
# The ten training labels that are doubted most
# ---------------------------------------------
#
# Behind the arrow stands the class that is proposed. On the command line all of it, with a page to
# click through, is ``sightline run probe --data photos/``.

doubted = audit.train.sort_values("label_quality")[:10]
names = np.array(data.class_names)
captions = [f"{a} → {b}" for a, b in zip(names[doubted["label"]], names[doubted["suggested"]], strict=True)]
plot = sl.plot_images(data.train.images[doubted["index"].to_numpy()], captions)
