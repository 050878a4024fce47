"""What a study consists of: its question, its arms, its plots and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from genrec.data.splits import Split


@dataclass(frozen=True)
class Arm:
    """One variant of a study.

    Attributes:
        name: name in tables, unique within the study.
        group: heading of the arms that are compared with each other; each is paired with the first
            arm of its group.
        settings: settings of GenRec.
        views: changes of the data; see :mod:`genrec.studies.views`.
        model: ``"genrec"``, or the name of a baseline.
        filtered: whether the words of the held-out histories filter: only items whose metadata hold
            all of them are left.
        random_weights: whether the backbone starts from random weights.
        effort: training targets as a share of the study's; 0 leaves the model untrained.
        users: share of the study's held-out targets on which the arm is measured.
        x: position of the arm in plots, such as its LoRA rank.
    """

    name: str
    group: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    model: str = "genrec"
    filtered: bool = False
    random_weights: bool = False
    effort: float = 1.0
    users: float = 1.0
    x: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the arm as plain values."""
        return {**asdict(self), "settings": dict(self.settings), "views": list(self.views)}


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study.

    Attributes:
        dataset: name of a known data set, or a prepared folder.
        targets: training targets of each arm. A target is one item of one history.
        users: number of held-out targets on which the arms are measured, drawn with seed 0.
        positions: held-out positions of each user before the test item; if ``None``, 3 in data
            of fewer than 3,000 users, where small differences would not be visible, else 1.
        seeds: number of seeds (0, 1, …) with which each arm is trained.
        settings: settings of GenRec for all arms.
        arms: names of the arms to run; all if empty.
    """

    dataset: str
    targets: int = 20_000
    users: int = 2000
    positions: int | None = None
    seeds: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    arms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A plot of a study.

    Attributes:
        name: name of its file.
        title: what it shows.
        value: the measured value on the vertical axis (curves) or horizontal axis (dots).
        kind: ``"dots"`` draws one line per arm with its interval; ``"differences"`` the paired
            difference to the first arm of the group; ``"curves"`` one curve per group over ``x``,
            and ``"scatter"`` the same without lines.
        x: ``"x"`` of the arm or a measured value, for curves.
        groups: the groups that the plot shows; all if empty.
    """

    name: str
    title: str
    value: str
    kind: Literal["dots", "differences", "curves", "scatter"] = "differences"
    x: str = "x"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A question with the arms that answer it.

    Attributes:
        name: name on the command line.
        title: heading of the report.
        question: the question in one or two sentences.
        arms: returns the arms for a split.
        plots: what the report shows.
        defaults: settings of :class:`StudyConfig` that differ from its own defaults.
        facts: computes facts about the data that no model is needed for.
        bounds: whether lower bounds of the times are computed.
        paired: whether arms are measured on the same targets, so that they can be compared.
        words: whether the weight of words is fitted, on training users held out for it.
        liked: whether only items that their user liked are held-out targets.
        measures: measured values in the table of the report besides accuracy.
    """

    name: str
    title: str
    question: str
    arms: Callable[[Split], Sequence[Arm]]
    plots: tuple[Plot, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    facts: Callable[[Split], Mapping[str, Any]] | None = None
    bounds: bool = False
    paired: bool = True
    words: bool = False
    liked: bool = False
    measures: tuple[str, ...] = ("train_seconds", "request_ms")
