import sightline as sl
from sightline.predictions import accuracy_per_class, confusion


def worst_class(predictions: sl.Predictions) -> float:
    """Accuracy of the class that is hit least."""
    counts = confusion(predictions.labels, predictions.predicted, len(predictions.class_names))
    return float(accuracy_per_class(counts).min())
