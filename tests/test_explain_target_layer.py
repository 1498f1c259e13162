import pytest
import torch
from explain_nets import Scale, Staged, Wrapped, conv, pictures
from torch import nn

from sightline.attribution import explain, target_layer
from sightline.attribution.layers import spatial_layers
from sightline.attribution.wrapped_model import subject_of
from sightline.errors import SightlineError


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


@pytest.mark.parametrize(
    ("size", "minimum", "expected"),
    [
        (32, 5, "layer3"),
        (40, 5, "layer4"),
        (56, 5, "layer4"),
        (32, 9, "layer2"),
        (32, 4, "layer4"),
        (16, 5, "layer2"),
    ],
)
def test_the_deepest_stage_whose_map_is_large_enough(size, minimum, expected):
    assert target_layer(Staged(), pictures(1, size), minimum=minimum) == expected


def test_a_backbone_in_a_wrapper_is_entered():
    model = nn.Sequential(Scale(), Wrapped(Staged()))
    assert target_layer(model, pictures(1, 32)) == "1.backbone.layer3"


def test_a_plain_sequence_gives_its_last_module_with_a_large_map():
    first = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    second = [nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    model = nn.Sequential(*first, *second, *head(6))
    assert target_layer(model, pictures(1, 32)) == "4"


def test_a_whole_stage_goes_before_the_parts_of_a_later_one():
    # The convolution in front of the pooling has a map of 8x8 as well, but the stage before is complete.
    late = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU())
    model = nn.Sequential(conv(3, 4), conv(4, 6, 4), late, *head(8))
    assert target_layer(model, pictures(1, 32)) == "1"


def test_a_trunk_that_ends_in_one_cell_is_entered_rather_than_left_for_the_stem():
    trunk = nn.Sequential(conv(4, 4, 2), conv(4, 6, 2), conv(6, 8, 8))
    model = nn.Sequential(Scale(), conv(3, 4), trunk, *head(8))
    assert target_layer(model, pictures(1, 32)) == "2.1"


def test_stages_in_a_module_list_are_found():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([conv(3, 4, 2), conv(4, 4, 2), conv(4, 4, 2)])
            self.head = nn.Sequential(*head(4))

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.head(x)

    assert target_layer(Listed(), pictures(1, 32)) == "stages.1"


def test_pooling_that_enlarges_one_cell_is_no_map():
    features = nn.Sequential(conv(3, 4), nn.MaxPool2d(4), conv(4, 4), nn.MaxPool2d(8))
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(4 * 49, 3))
    assert target_layer(model, pictures(1, 32)) == "0.2"


def test_normalisation_is_no_candidate_though_the_grid_never_shrinks():
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), *head(4)
    )
    assert target_layer(nn.Sequential(Scale(), trunk), pictures(1, 16)) == "1.3"


def test_order_of_execution_counts_and_not_order_of_definition():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early, self.fc = conv(4, 4), conv(3, 4, 2), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.late(self.early(x)).mean((2, 3)))

    assert target_layer(Reversed(), pictures(1, 16)) == "late"


def test_where_no_map_is_large_enough_the_largest_serves():
    model = nn.Sequential(Scale(), conv(3, 4, 2), conv(4, 4), conv(4, 4, 2), *head(4))
    result = explain(model, pictures(2, 8))
    assert (result.layer, result.maps.shape) == ("2", (2, 4, 4))


@pytest.mark.parametrize("body", [[nn.Flatten(), nn.Linear(3 * 64, 3)], [nn.Conv2d(3, 3, 8), nn.Flatten()]])
def test_a_model_without_maps_is_an_error(body):
    with pytest.raises(
        SightlineError, match=r"Sequential has no layer with a map .* larger than 1x1; explain needs"
    ):
        target_layer(nn.Sequential(Scale(), *body), pictures(1, 8))


def test_a_layer_that_runs_several_times_is_no_candidate():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.again(self.again(self.first(x))).mean((2, 3))

    assert target_layer(Shared(), pictures(1, 8)) == "first"


def test_the_outermost_maps_are_listed_in_the_order_in_which_they_ran():
    expected = ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert spatial_layers(subject_of(Staged()), torch.rand(1, 3, 32, 32)) == expected
