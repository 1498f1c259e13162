"""Train an image classifier, find what it gets wrong, and see where it looked.

    import sightline as sl

    data = sl.load_data("cifar10")
    model = sl.create_model("resnet18", data)
    history = sl.fit(model, data, epochs=20, batch_size=512)
    predictions = sl.predict(model, data.test, class_names=data.class_names)
    mistakes = sl.rank_mistakes(predictions, limit=10)

or all of it, with a report: `sl.run("cifar10-quick")`. Nothing heavy is imported until a name is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.2.0"
