"""The terms of the page, each in one or two sentences: next to the titles of its sections, and in the docs.

>>> TERMS["Confidence"]
'The largest of the probabilities that the model gives to the classes of an image.'
"""

from __future__ import annotations

TERMS = {
    "Ambiguity": (
        "How open the answer is: the entropy of the probabilities, averaged over versions of the image "
        "(and other models, if there are any), as a share of its largest value."
    ),
    "Area under the margin": (
        "The mean, over the epochs of training, of the label's score minus the largest other score. "
        "It stays low for a label that the model never learned."
    ),
    "AURC, AUGRC": (
        "The areas under two curves of error against coverage. Lower is better: the model's confidence puts "
        "its mistakes last."
    ),
    "Baseline map": (
        "A heat map that knows nothing of the model's answer, such as a random one or a centred blob. "
        "A method is useful only if its maps do better."
    ),
    "Calibration error": (
        "The mean distance between confidence and accuracy over bins of images with similar confidence "
        "(ECE). It is 0 if the model is right in 80 % of the cases in which it says 80 %."
    ),
    "Churn": "Images that two models get wrong in different ways.",
    "Confidence": "The largest of the probabilities that the model gives to the classes of an image.",
    "Confidence interval": (
        "The range in which the true value probably lies: of 100 such intervals, about 95 contain it. "
        "Shares of images have Wilson intervals."
    ),
    "Conformal set": (
        "All classes of an image that are probable enough. The threshold is chosen so that the set contains "
        "the label as often as wanted."
    ),
    "Confusion matrix": (
        "A table of counts: one row for each true class, one column for each predicted class. "
        "Right answers are on the diagonal."
    ),
    "Corruption": "A change of an image that should not change its class, such as noise, blur or fog.",
    "Coverage": "The share of the images that the model answers, when it may refuse the others.",
    "Deletion, insertion": (
        "Two measures of a heat map: pixels are removed (or restored) in the order of the map, and the "
        "probability of the class should fall (or rise) fast."
    ),
    "Error budget": (
        "The mistakes, divided by their most probable cause. Each mistake is counted once, so the parts add "
        "up."
    ),
    "Expected by chance": "What the same count would be if there were nothing to find.",
    "Faithful map": (
        "A heat map is faithful if the pixels that it marks are the pixels that the model's answer depends "
        "on."
    ),
    "Fix": "An action that follows from the findings, with an estimate of what it gains.",
    "Forgetting": "How often an image was right in one epoch of training and wrong in the next.",
    "Grid pointing game": (
        "Four images in one picture: a faithful map of a class lies on the image of this class."
    ),
    "Ground truth": "On generated data the faults are known, so that each finding can be compared with them.",
    "Heat map": (
        "A picture of how much each part of an image contributed to one class, by the method that the page "
        "names."
    ),
    "Held-out half": (
        "The half of the test images that had no part in making a finding. The finding is checked on it."
    ),
    "Label issue": (
        "An image whose label may be wrong: witnesses that have not seen the label name another class. What "
        "share of the flagged ones is wrong stands beside them."
    ),
    "Label quality": "A score from 0 to 1 for the label of an image; low is bad.",
    "Leak": "A test image that has a near-duplicate in the training set. It tests memory, not skill.",
    "Learning-rate range test": (
        "A short training in which the learning rate grows step by step, to see at which rates the loss "
        "falls."
    ),
    "Loss": "The cross-entropy of an image: minus the logarithm of its label's probability. Low is good.",
    "Map of the images": (
        "What the network sees as alike: the features of all images, placed in the plane so that neighbours "
        "stay neighbours (t-SNE). Groups and their distances are not measurements."
    ),
    "Margin": "The largest probability of an image minus the second largest.",
    "McNemar's test": (
        "A test of two models on the same images, from the images that only one of them gets right."
    ),
    "Near-duplicate": (
        "Two images that are the same picture, or nearly so: exact, mirrored, or with small changes."
    ),
    "p-value": (
        "The probability of a result at least this extreme if there were nothing to find. A small p-value "
        "is evidence, not proof."
    ),
    "Reliability diagram": "Accuracy against confidence. A calibrated model lies on the diagonal.",
    "Risk": "The share of wrong answers among the images that the model answers.",
    "ROAD": (
        "A measure of a heat map like deletion, in which removed pixels are replaced by a noisy mean of "
        "their neighbours."
    ),
    "Shortcut": (
        "Evidence that goes with a class in this data but is not the object, such as a mark or a background."
    ),
    "Slice": "A group of images with something in common, here one with more mistakes than the others.",
    "Temperature": (
        "One number by which the scores of all classes are divided. It changes the confidence and never the "
        "answer."
    ),
    "Test-time augmentation": "The mean answer over an image and changed versions of it, such as its mirror.",
}  # fmt: skip


def glossary_markdown() -> str:
    """Return the whole glossary, as docs/glossary.md has it."""
    head = "# Glossary\n\nThe terms of the report. The page shows them behind the `?` next to its titles.\n"
    return head + "".join(f"\n**{term}.** {text}\n" for term, text in TERMS.items())
