"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import pytest

from cli import words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (200 * 1024**2, "200 MiB"),
        (3 * 1024**4, "3.0 TiB"),
        (2**63, "8192.0 PiB"),
    ],
)
def test_sizes_use_the_largest_unit_that_leaves_at_least_one(number: int, text: str) -> None:
    assert words.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"),
        (0.000_74, "740 us"),
        (0.085, "85 ms"),
        (3.21, "3.2 s"),
        (245, "4m 05s"),
        (7_800, "2h 10m"),
        (273_600, "3d 4h"),
    ],
)
def test_durations_have_two_parts_at_most(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "now"), (5.9, "5 s ago"), (245.5, "4m 05s ago"), (-2, "now")])
def test_the_past_is_told_in_whole_seconds(seconds: float, text: str) -> None:
    assert words.ago(seconds) == text


def test_rates_keep_a_decimal_only_where_it_matters() -> None:
    assert (words.rate(12_345.6, "rows"), words.rate(3.25, "tasks")) == ("12,346 rows/s", "3.2 tasks/s")


def test_labels_are_sorted_by_name() -> None:
    assert words.pairs({"zone": "b", "arch": "x"}) == "arch=x zone=b"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("512MiB", 512 << 20),
        ("1.5 GiB", 3 << 29),
        ("2GB", 2 * 10**9),
        ("10tib", 10 << 40),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, number: int) -> None:
    """Plain bytes, powers of 1024 with an i, of 1000 without."""
    assert words.parse_size(text) == number


@pytest.mark.parametrize("text", ["", "much", "-1", "5 apples", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """And the message names the forms that are."""
    with pytest.raises(ValueError, match="GiB"):
        words.parse_size(text)
