"""The experts by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from genrec.collaborative.ease import EASEExpert
from genrec.collaborative.expert import Expert
from genrec.collaborative.popularity import PopularityExpert
from genrec.collaborative.recency import RecencyExpert
from genrec.collaborative.slit import SLITExpert
from genrec.collaborative.text import TextExpert
from genrec.collaborative.transitions import TransitionExpert
from genrec.errors import ConfigError


def _sasrec() -> Expert:
    from genrec.collaborative.sasrec import SASRecExpert

    return SASRecExpert()


EXPERTS: dict[str, Callable[[], Expert]] = {
    "transitions": TransitionExpert,
    "ease": EASEExpert,
    "slit": SLITExpert,
    "text": TextExpert,
    "recency": RecencyExpert,
    "popularity": PopularityExpert,
    "sasrec": _sasrec,
}
"""Functions that create an unfitted expert, by name; add your own here."""
AUTO = ("transitions", "ease", "slit", "text", "recency", "popularity")
"""The experts among which ``experts="auto"`` chooses on validation users."""


def make_experts(names: Sequence[str], n_items: int, seed: int = 0) -> list[Expert]:
    """Create unfitted experts.

    Args:
        names: keys of :data:`EXPERTS`.
        n_items: size of the catalogue.
        seed: seed of those that draw random numbers.

    Raises:
        ConfigError: A name is unknown or occurs twice, or the catalogue is too large for an expert.
    """
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"experts needs one or more different names, got {', '.join(names)!r}.")
    made = []
    for name in names:
        if name not in EXPERTS:
            raise ConfigError(f"Unknown expert {name!r}. Use some of {', '.join(EXPERTS)}.")
        expert = EXPERTS[name]()
        if not fits(expert, n_items):
            raise ConfigError(
                f"The expert {name} can handle at most {expert.max_items:,} items, but the "
                f"catalogue has {n_items:,}. Leave {name} out of experts."
            )
        expert.seed = seed
        made.append(expert)
    return made


def auto_experts(n_items: int) -> list[Expert]:
    """Create the experts of :data:`AUTO` that can handle a catalogue."""
    return [expert for name in AUTO if fits(expert := EXPERTS[name](), n_items)]


def fits(expert: Expert, n_items: int) -> bool:
    """Return whether an expert can handle a catalogue of this size."""
    return expert.max_items is None or n_items <= expert.max_items
