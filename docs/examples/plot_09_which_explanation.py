"""
Which explanation to believe?
=============================

Grad-CAM, HiRes-CAM, Layer-CAM, Eigen-CAM: four answers to the question where the model looked, and
they differ. Each is measured by what it claims: take away what a map calls important and the
class's probability should fall, more than it does for maps that know nothing of the model.
"""

import sightline as sl

data = sl.load_data("shapes", limit=3000)
model = sl.create_model("speednet", data, widths=[32, 64, 128])
sl.fit(model, data, epochs=6, batch_size=128, schedule=sl.SCHEDULES["one_cycle"](0.4), verbose=False)
predictions = sl.predict(model, data.test, class_names=data.class_names)
print(f"test accuracy {predictions.correct.mean():.1%}")

# %%
# They look alike
# ---------------

wrong = sl.rank_mistakes(predictions, limit=4)["index"].to_numpy()
pictures = data.test.images[wrong]
methods = ["grad_cam", "hires_cam", "layer_cam", "eigen_cam"]
maps = {name: sl.explain(model, sl.to_float(pictures), method=name, layer="block2") for name in methods}
plot = sl.plot_explanations(pictures, maps, data.class_names)

# %%
# They are not
# ------------
#
# The verdicts are of 24 pictures, image by image against each baseline, with intervals; more pictures
# make them narrower.

images = sl.to_float(data.test.images[:24])
comparison = sl.compare_methods(model, images, methods=methods, layer="block2", budget="fast")
for method, verdict in comparison.verdicts.items():
    print(f"{method}: {verdict}")

# %%
# So ``eigen_cam``, which does not ask for a class, is to be believed less here, and the page of a run
# draws with the one that won. The fault that was found is the map's: a picture of what is in the
# image, not of what decided.
