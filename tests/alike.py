"""Comparisons of lists whose floats were computed in another way, e.g. in another batch.

Processors round differently, so scores are compared with a tolerance, and items that are nearly
tied may change places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec import Recommendation
from genrec.recommender import TopK

TOLERANCE = 1e-4
"""Of log-probabilities, in nats; nearly tied is what differs by less."""


def assert_same_lists(found: TopK, expected: TopK, atol: float = TOLERANCE) -> None:
    """The same scores, and the same items up to the order of near ties."""
    assert found.items.shape == expected.items.shape
    for row in range(len(expected.items)):
        assert_same_row(
            found.items[row].tolist(),
            found.scores[row],
            expected.items[row].tolist(),
            expected.scores[row],
            atol,
        )


def assert_same_recommendations(
    found: Sequence[Recommendation], expected: Sequence[Recommendation], atol: float = TOLERANCE
) -> None:
    """:func:`assert_same_lists` for recommendations."""
    assert [each.rank for each in found] == [each.rank for each in expected]
    assert_same_row(
        [each.item_id for each in found],
        np.log([each.probability for each in found]),
        [each.item_id for each in expected],
        np.log([each.probability for each in expected]),
        atol,
    )


def assert_same_answers(
    found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> None:
    """:func:`assert_same_lists` for the items of the service's answers, reasons included."""

    def made(items: Sequence[Mapping[str, Any]]) -> list[Recommendation]:
        names = ("rank", "item_id", "title", "probability")
        return [Recommendation(**{name: item[name] for name in names}) for item in items]

    assert_same_recommendations(made(found), made(expected))
    reasons = {item["item_id"]: item["because"] for item in expected}
    for item in found:
        other = reasons.get(item["item_id"])
        if other is None or item["because"] is None:
            assert item["because"] == other
            continue
        ours, theirs = (
            {each["item_id"]: each["effect"] for each in because}
            for because in (item["because"], other)
        )
        assert set(ours) == set(theirs)
        np.testing.assert_allclose(
            [ours[key] for key in theirs], list(theirs.values()), atol=10 * TOLERANCE
        )


def assert_same_row(
    found: Sequence[object],
    found_scores: npt.NDArray[np.float64],
    expected: Sequence[object],
    expected_scores: npt.NDArray[np.float64],
    atol: float,
) -> None:
    """One list: scores by place, and each item where its score belongs."""
    np.testing.assert_allclose(found_scores, expected_scores, atol=atol)
    for place, item in enumerate(found):
        tied = np.isclose(expected_scores, found_scores[place], rtol=0, atol=2 * atol)
        among = [expected[other] for other in np.flatnonzero(tied)]
        assert item in among or tied[-1], (item, among)  # what follows the end may be tied, too
