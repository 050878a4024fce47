from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from genrec.language_model.decisions import choices, distinct_tokens
from genrec.language_model.trie import LEAF, ROOT, Trie, build_trie

END = 0
titles_strategy = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple),
    min_size=1,
    max_size=40,
    unique=True,
)


def closed(titles: list[tuple[int, ...]]) -> list[list[int]]:
    return [[*title, END] for title in titles]


def spell(trie: Trie, item: int) -> list[int]:
    """Walk an item's decisions and collect the tokens of the edges."""
    tokens: list[int] = []
    for child in trie.decisions(item):
        if trie.child_node[child] == LEAF:
            tokens += trie.titles[item][trie.depth[trie.child_parent[child]] :].tolist()
        else:
            tokens += trie.edge(child).tolist()
    return tokens


@given(titles_strategy)
def test_every_title_is_spelled_by_its_decisions(titles: list[tuple[int, ...]]) -> None:
    trie = build_trie(closed(titles))
    assert [spell(trie, item) for item in range(len(titles))] == closed(titles)


@given(titles_strategy)
def test_nodes_own_contiguous_leaf_ranges_that_partition(titles: list[tuple[int, ...]]) -> None:
    trie = build_trie(closed(titles))
    for node in range(len(trie.depth)):
        children = trie.children(node)
        low, high = trie.child_low[children], trie.child_high[children]
        assert (low[1:] == high[:-1]).all()
        assert len(low) > 1 or node == ROOT  # a node is a real decision
        assert len(set(trie.child_token[children].tolist())) == len(low)
    assert sorted(trie.items.tolist()) == list(range(len(titles)))


def test_small_trie_by_hand() -> None:
    #          [1 2 0]  [1 3 0]  [2 0]: the root parts 1 from 2, the node "1" parts 2 from 3
    trie = build_trie([[1, 2, END], [1, 3, END], [2, END]])
    assert trie.depth.tolist() == [0, 1]
    assert trie.child_token.tolist() == [1, 2, 2, 3]
    assert trie.child_node.tolist() == [1, LEAF, LEAF, LEAF]
    assert trie.decisions(1).tolist() == [0, 3]
    assert trie.decisions(2).tolist() == [1]


def test_titles_that_begin_alike_have_a_root_with_one_child() -> None:
    trie = build_trie([[7, 7, 1, END], [7, 7, 2, END]])
    assert trie.depth.tolist() == [0, 2]
    assert trie.child_node.tolist() == [1, LEAF, LEAF]
    assert [trie.decisions(item).tolist() for item in (0, 1)] == [[0, 1], [0, 2]]


def test_one_item_needs_no_token() -> None:
    trie = build_trie([[5, END]])
    assert len(trie.decisions(0)) == 1
    assert trie.depth.tolist() == [0]


def test_equal_titles_and_prefixes_are_refused() -> None:
    with pytest.raises(DataError, match="Items 0 and 2 have the same title tokens"):
        build_trie([[1, END], [2, END], [1, END]])
    with pytest.raises(DataError, match="prefix"):
        build_trie([[1, 2], [1, 2, 3]])
    with pytest.raises(DataError, match="empty"):
        build_trie([])


def test_titles_sharing_long_prefixes_have_one_real_decision() -> None:
    stem = list(range(1, 200))
    trie = build_trie([[*stem, 200 + n, END] for n in range(50)])
    assert trie.depth.tolist() == [0, 199]
    assert np.diff(trie.path_offsets).tolist() == [2] * 50


@given(titles_strategy, st.lists(st.integers(0, 1000), min_size=1, max_size=12))
def test_distinct_tokens_of_choices(titles: list[tuple[int, ...]], drawn: list[int]) -> None:
    trie = build_trie(closed(titles))
    chosen = choices(trie, np.array(drawn) % len(trie.depth))
    tokens, place = distinct_tokens(trie, chosen)
    expected = np.unique(trie.child_token[chosen.child], return_inverse=True)
    np.testing.assert_array_equal(tokens, expected[0])
    np.testing.assert_array_equal(place, expected[1])
