"""
A leak: how much of my accuracy are copies?
===========================================

Near-copies of training pictures in the test split are right for the wrong reason. They are found by
comparing pictures with pictures, checked against decoys that cannot be copies, and the accuracy is
stated without them.
"""

import tempfile
from pathlib import Path

import sightline as sl
from sightline.audit import Evidence, make_audit
from sightline.predictions import predict_features

# %%
# The data
# --------
#
# A tenth of the test pictures are made from training pictures: cropped, mirrored, recompressed,
# recoloured. Nobody tells the audit which.

folder = Path(tempfile.mkdtemp()) / "leaky"
data = sl.plant(sl.load_data("shapes", limit=1200), folder, copies=0.1)
model = sl.create_model("speednet", data, widths=[16, 32, 64])
sl.fit(model, data, epochs=8, batch_size=64, schedule=sl.SCHEDULES["one_cycle"](0.2), verbose=False)

# %%
# The audit
# ---------

predictions, features = predict_features(model, data.test, class_names=data.class_names)
_, train_features = predict_features(model, data.train, class_names=data.class_names)
audit = make_audit(Evidence(data, predictions, features=features, train_features=train_features))
duplicates = audit.duplicates
print(f"{duplicates.leaked} test pictures have a near-copy in training")
print(f"accuracy {audit.accuracy.value:.1%}, without them {duplicates.accuracy_without.value:.1%}")

# %%
# The pairs
# ---------
#
# Above the test picture, below the training picture that it is a copy of.

pairs = [pair for pair in duplicates.pairs if {pair.a_split, pair.b_split} == {"train", "test"}][:6]
test = [pair.a if pair.a_split == "test" else pair.b for pair in pairs]
train = [pair.b if pair.a_split == "test" else pair.a for pair in pairs]
plot = sl.plot_images(data.test.images[test], [f"test {row}" for row in test], per_line=6)

# %%
plot_train = sl.plot_images(data.train.images[train], [f"training {row}" for row in train], per_line=6)
