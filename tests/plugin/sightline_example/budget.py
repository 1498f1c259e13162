from sightline.signatures import NonNegative
from sightline.training import Callback, Trainer


class TimeBudget(Callback):
    """End the training after the epoch in which so many seconds are used up."""

    def __init__(self, seconds: NonNegative) -> None:
        self.seconds = seconds

    def on_train_begin(self, trainer: Trainer) -> None:
        self.spent = 0.0

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.spent += trainer.history.epochs[-1]["seconds"]
        trainer.stop |= self.spent >= self.seconds

    def state_dict(self) -> dict[str, float]:
        return {"spent": self.spent}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.spent = state["spent"]
