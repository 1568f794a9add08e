"""Labels that speak of batches are read where they make sense, and refused with what they must be where not."""

from __future__ import annotations

import pytest

from hivefold.oip.batching import MAX_DELAY_US, MAX_ROWS, PREFERRED_ROWS, QUEUE, read_number, read_sizes, wrong_labels


def test_labels_that_make_sense_are_read() -> None:
    """Sizes in any order, each once."""
    assert read_number(MAX_DELAY_US, "0") == 0
    assert read_number(MAX_ROWS, "65536") == 65_536
    assert read_sizes("16,8,8") == (8, 16)
    assert wrong_labels({MAX_ROWS: "1", MAX_DELAY_US: "2000", PREFERRED_ROWS: "8,16", QUEUE: "2", "team": "a"}) == {}


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (MAX_ROWS, "0"),
        (MAX_ROWS, "many"),
        (MAX_ROWS, ""),
        (MAX_DELAY_US, "-1"),
        (MAX_DELAY_US, "1000001"),
        (QUEUE, "2049"),
        (PREFERRED_ROWS, ""),
        (PREFERRED_ROWS, "8,,16"),
        (PREFERRED_ROWS, "0,8"),
        (PREFERRED_ROWS, ",".join(str(size) for size in range(1, 18))),
        ("batch.rows", "8"),
    ],
)
def test_a_label_that_makes_no_sense_is_named_with_what_it_must_be(label: str, text: str) -> None:
    """A misspelt one, too: it would change nothing, and nobody would know."""
    wrong = wrong_labels({label: text, MAX_ROWS: "8"} if label != MAX_ROWS else {label: text})
    assert list(wrong) == [label]
    assert "must be" in wrong[label] or MAX_ROWS in wrong[label]
