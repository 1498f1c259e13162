import logging
import time

import pytest

from sightline import logs
from sightline.logs import Heartbeat, Stage, describe_stages, stage, watched


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, logger="sightline")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_stage_lasts_as_long_as_its_block_and_ends_with_what_an_error_left_open():
    with stage("outer"):
        inner = stage("inner", total=3)
        inner.__enter__().advance(2)
        assert describe_stages(tuple(logs._stages)) == "outer: inner, 2 of 3"
    assert not logs._stages
    with pytest.raises(ZeroDivisionError), stage("fails"):
        raise ZeroDivisionError
    assert not logs._stages


def test_a_stage_decorates_a_function_and_is_new_at_each_call():
    seen = []

    @stage("work")
    def work():
        seen.append(logs._stages[-1])

    work()
    work()
    assert [one.what for one in seen] == ["work", "work"]
    assert seen[0] is not seen[1]


def test_a_heartbeat_names_a_stage_once_and_again_after_half_a_minute_of_silence(told):
    lines, now = Heartbeat(), time.monotonic()
    short = Stage("short", began=now)
    lines.look((short,))
    assert told() == []  # it has only begun
    long = Stage("long", total=10, done=4, began=now - 3)
    lines.look((long,))
    lines.look((long,))
    assert told() == ["long, 4 of 10 ..."]
    lines._last = now - 29
    lines.look((long,))
    assert len(told()) == 1
    lines._last = now - 31
    long.done = 5
    lines.look((long, Stage("part", note="7 images/s")))
    assert told()[1:] == ["long: part, 5 of 10, 7 images/s ..."]


def test_a_line_of_anybody_counts_against_the_silence():
    lines = Heartbeat()
    lines._last = 0.0
    lines.handle(logging.LogRecord("sightline", logging.INFO, "", 0, "a line", (), None))
    assert lines._last > 0


def test_what_lasts_is_shown_from_a_thread_that_ends_with_the_block():
    looks = []
    with watched(looks.append, every=0.01):
        with stage("a"):
            while not looks or not looks[-1]:
                time.sleep(0.01)
        assert looks[-1][0].what == "a"
    count = len(looks)
    time.sleep(0.05)
    assert len(looks) == count


def test_training_counts_its_steps():
    import sightline as sl

    data = sl.load_data("shapes", limit=64)
    model = sl.create_model("custom_resnet", data)
    counts = []

    class Look(sl.training.Callback):
        def on_step_end(self, trainer):
            counts.append((logs._stages[0].what, logs._stages[0].total, trainer.progress.step))

    sl.fit(model, data, epochs=2, batch_size=32, callbacks=[Look()], verbose=False)
    assert counts == [("training", 4, step) for step in range(4)]
