"""Loading the run that a service answers with."""

from __future__ import annotations

from pathlib import Path

from genrec.errors import ConfigError
from genrec.model.genrec import GenRec
from genrec.serving.changes import Change, ChangeLog, replay


def load_model(run: Path) -> GenRec:
    """Load a run and warm it up with one request and one word.

    Raises:
        GenRecError: The folder holds no complete run, or the run does not use exact search.
    """
    model = GenRec.from_pretrained(run)
    if model.config.decoding != "exact":
        raise ConfigError(
            f"{run}: this run has decoding={model.config.decoding}, but only runs with "
            "decoding=exact can be served; train one with --set decoding=exact."
        )
    model.recommend(model.catalogue.titles[:1], 1, by="title")
    _ = model.related_words("funny")  # builds the index of words, which takes a second
    return model


def load_changed(run: Path, changes: ChangeLog) -> tuple[GenRec, list[Change]]:
    """Load a run and apply the catalogue changes, which takes long if there are many.

    Returns:
        The model, and the changes that were applied to it.
    """
    model, known = load_model(run), changes.all()
    replay(known, model)
    return model, known
