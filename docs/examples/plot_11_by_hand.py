"""
Grad-CAM by hand, and in one call
=================================

Where does a network look when it answers? Grad-CAM (Selvaraju et al. 2017) weighs the channels of a
layer by the mean gradient of the answer's score. Ten lines of torch do it for one network and one
layer; ``sl.explain`` does it for any network, finds the layer, leaves nothing behind in the model,
and gives the same numbers.
"""

import torch

import sightline as sl

data = sl.load_data("shapes", limit=3000)
model = sl.create_model("speednet", data, widths=[32, 64, 128])
sl.fit(model, data, epochs=6, batch_size=128, schedule=sl.SCHEDULES["one_cycle"](0.4), verbose=False)
predictions = sl.predict(model, data.test, class_names=data.class_names)
print(f"test accuracy {predictions.correct.mean():.1%}")

# %%
# By hand
# -------
#
# A hook keeps what the layer gave, ``autograd`` says how the score of the predicted class depends on
# it.

wrong = sl.rank_mistakes(predictions, limit=5)["index"].to_numpy()
images = sl.to_float(data.test.images[wrong])  # (B, 3, H, W) in [0, 1]
model.eval()
kept = []
hook = model.block2.register_forward_hook(lambda module, inputs, output: kept.append(output))
logits = model(images)
hook.remove()
scores = logits[torch.arange(len(images)), logits.argmax(1)]
(gradients,) = torch.autograd.grad(scores.sum(), kept[0])
weights = gradients.mean((2, 3), keepdim=True)  # (B, K, 1, 1): eq. 1 of the paper
by_hand = (weights * kept[0]).sum(1).detach().numpy()  # (B, h, w): eq. 2, before the ReLU

# %%
# In one call
# -----------

maps = sl.explain(model, images, method="grad_cam", layer="block2")
print("largest difference:", abs(by_hand - maps.maps).max())

# %%
# The costliest mistakes, with the evidence for what was predicted, and for what is true. One look
# shows more than the number: the network was right about *where* and wrong about *what*, or it looked
# at something else altogether.

labels = predictions.labels[wrong]
both = {"predicted": maps, "true": sl.explain(model, images, labels, method="grad_cam", layer="block2")}
plot = sl.plot_explanations(data.test.images[wrong], both, data.class_names)
