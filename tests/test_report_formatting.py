"""Numbers and names as the page writes them."""

from __future__ import annotations

import pytest

from sightline.report.formatting import class_keys, digits_of, page_name, percent_digits, short_name


def test_names_are_cut_cleaned_and_isolated():
    assert len(short_name("x" * 10_000)) == 48
    assert short_name("a\u202eb\n\x00c") == "ab c"
    assert short_name("\u200f ") == "(no name)"
    assert page_name("שלום") == "\u2068שלום\u2069"
    assert page_name("cat") == "cat"


def test_classes_of_one_name_have_keys_of_their_own():
    keys = class_keys(["a", "a", "a~1", "x" * 900, "x" * 901])
    assert len(set(keys)) == 5
    assert max(map(len, keys)) < 60


@pytest.mark.parametrize("width", [0.0123, 0.5, 3.4, 12.0, 180.0])
def test_a_number_has_two_digits_of_the_width_of_its_interval_at_most(width):
    digits = digits_of((1.0, 1.0 + width), largest=9)
    assert digits == 0 or 10 <= width * 10**digits < 100
    assert percent_digits((0.2, 0.2 + width / 100)) == min(digits, 2)


def test_of_several_intervals_the_narrowest_counts():
    assert digits_of((0, 90), (0, 0.5), (0, 7)) == digits_of((0, 0.5)) == 2
    assert digits_of() == digits_of((0.0, 1.0)) == 1
    assert digits_of((2.0, 2.0)) == 3
