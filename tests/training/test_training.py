from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from alike import assert_same_lists
from conftest import make_dataset
from genrec import GenRec, GenRecError, Histories, leave_last_out
from genrec.language_model.backbone import Backbone
from genrec.model.ranker import Ranker
from genrec.training import trainer
from genrec.training.batches import Collator
from genrec.training.trainer import CHECKPOINT_PREFIX
from genrec.training.windows import Window, Windows

SMALL = {
    "dtype": "float32",
    "lora_rank": 4,
    "batch_size": 8,
    "microbatch_size": 4,
    "window": 6,
    "warmup_steps": 2,
}


def test_windows_are_counted_from_the_end_and_cover_every_item() -> None:
    windows = list(Windows(Histories.from_lists([range(10)]), 4, every_position=True))
    assert windows == [Window(0, 5, 6, 10), Window(0, 1, 2, 6), Window(0, 0, 0, 2)]
    targets = [item for window in windows for item in range(window.first, window.stop)]
    assert sorted(targets) == list(range(10))
    assert Windows(Histories.from_lists([range(10)]), 4, every_position=True).targets == 10


def test_only_the_last_windows_of_each_history() -> None:
    histories = Histories.from_lists([range(10), [], range(3)])
    windows = list(Windows(histories, 4, every_position=True, last=1))
    assert windows == [Window(0, 5, 6, 10), Window(2, 0, 0, 3)]


def test_one_target_per_window_with_the_instruction_template() -> None:
    windows = list(Windows(Histories.from_lists([range(4)]), 2, every_position=False))
    assert windows == [Window(0, 1, 3, 4), Window(0, 0, 2, 3), Window(0, 0, 1, 2)]


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(GenRecError, match="Nothing to train on"):
        Windows(Histories.from_lists([[]]), 4, every_position=True)


@pytest.mark.parametrize("context_layers", [1, None])
@pytest.mark.parametrize("template", ["list", "instruction"])
def test_batch_scores_equal_the_inference_scores(
    tiny_backbone: str, template: str, context_layers: int | None
) -> None:
    """The collator and the serving path put the same tokens before a target."""
    data = make_dataset()
    model = GenRec(
        backbone=tiny_backbone,
        template=template,
        prior="none",
        dtype="float32",
        context_layers=context_layers,
    )
    model.build(data)
    model.ranker.prompts.prefixes[1:] = []  # inference uses the first wording only
    history = data.histories[0]
    count = len(history) if template == "list" else 1
    window = Window(0, 0, len(history) - count, len(history))
    batch = Collator(model.ranker.layout, data.histories, None)([window])
    assert batch.pop("titles") == count
    loss = float(model.ranker.likelihood(**batch)["loss"])
    before = Histories.from_lists([history[:t] for t in range(len(history) - count, len(history))])
    scores = model.log_likelihood(before, history[len(history) - count :])
    assert loss == pytest.approx(-scores.mean(), abs=1e-4)


def test_a_window_longer_than_the_context_drops_its_oldest_targets(tiny_backbone: str) -> None:
    data = make_dataset()
    model = GenRec(
        backbone=tiny_backbone,
        prior="cooccurrence",
        max_tokens=80,
        dtype="float32",
        context_layers=None,
    )
    model.build(data)
    row = int(np.argmax(data.histories.lengths))
    stop = len(data.histories[row])
    collate = Collator(model.ranker.layout, data.histories, model.ranker.prior)
    batch = collate([Window(row, 0, 0, stop)])
    targets = batch["labels"].tolist()
    assert batch["sequences"].ids.shape[1] <= 80
    assert 0 < len(targets) < stop
    assert targets == data.histories[row][stop - len(targets) :].tolist()


@pytest.mark.parametrize("prior", ["none", "cooccurrence"])
@pytest.mark.slow
def test_training_raises_the_likelihood_of_unseen_targets(tiny_backbone: str, prior: str) -> None:
    split = leave_last_out(make_dataset(users=120))
    model = GenRec(backbone=tiny_backbone, prior=prior, learning_rate=1e-2, lm_weight=1.0, **SMALL)
    model.fit(split.train, split.valid, epochs=6, progress=False)
    before, after = model.info["valid_log_likelihood"]
    assert after > before + 0.1


@pytest.mark.slow
def test_paper_recipe_trains_on_all_tokens(tiny_backbone: str) -> None:
    split = leave_last_out(make_dataset(users=10))
    model = GenRec(
        backbone=tiny_backbone,
        recipe="paper",
        dtype="float32",
        learning_rate=1e-2,
        batch_size=8,
        warmup_steps=1,
        beams=4,
        max_tokens=400,
    )
    model.fit(split.train, epochs=2, progress=False)
    losses = [entry["loss"] for entry in model.training.log]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    top = model.recommend_batch(split.test.histories, 3)
    for row, listed in enumerate(top.items):
        known = listed[listed >= 0]
        assert len(set(known.tolist())) == len(known)
        assert not set(known.tolist()) & set(split.test.histories[row].tolist())


class KilledError(Exception):
    pass


@pytest.mark.parametrize("step", [3, 5, 7])
@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    split = leave_last_out(make_dataset())
    train, valid = split.train, split.valid
    settings = {**SMALL, "backbone": tiny_backbone, "save_steps": 2, "seed": 5}
    if step == 7:  # a look at every second step; that there were three in vain is not forgotten
        settings |= {"patience": 3, "eval_steps": 2}
    whole = GenRec(**settings).fit(train, valid, epochs=2, progress=False)

    real = trainer.LikelihoodTrainer.training_step

    def dying(self: trainer.LikelihoodTrainer, *args: object) -> torch.Tensor:
        if self.state.global_step == step:
            raise KilledError
        return real(self, *args)

    monkeypatch.setattr(trainer.LikelihoodTrainer, "training_step", dying)
    with pytest.raises(KilledError):
        GenRec(**settings).fit(train, valid, epochs=2, output=tmp_path, progress=False)
    assert list((tmp_path / "checkpoints").glob(f"{CHECKPOINT_PREFIX}*"))
    half = tmp_path / "checkpoints" / f"{CHECKPOINT_PREFIX}99"  # killed while it was written
    half.mkdir()
    (half / "trainable.safetensors").write_bytes(b"half")
    monkeypatch.setattr(trainer.LikelihoodTrainer, "training_step", real)
    resumed = GenRec(**settings).fit(train, valid, epochs=2, output=tmp_path, progress=False)
    expected = [entry["loss"] for entry in whole.training.log]
    assert [entry["loss"] for entry in resumed.training.log] == pytest.approx(expected, abs=1e-4)
    assert resumed.training.targets == whole.training.targets
    assert resumed.training.best_step == whole.training.best_step
    assert len(resumed.training.evaluations) == len(whole.training.evaluations)


def test_checkpoints_of_other_settings_are_not_mixed_in(tiny_backbone: str, tmp_path: Path) -> None:
    train = leave_last_out(make_dataset(users=8)).train
    settings = {**SMALL, "backbone": tiny_backbone}
    GenRec(**settings).fit(train, epochs=1, output=tmp_path, progress=False)
    with pytest.raises(GenRecError, match=r"other settings \(learning_rate\).*--restart"):
        GenRec(**{**settings, "learning_rate": 0.5}).fit(train, output=tmp_path, progress=False)


def test_the_best_evaluation_is_kept(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations get worse after the second one: training stops, and goes back to it."""
    split = leave_last_out(make_dataset())
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate_step(ranker: Ranker, holdout: object, exclude_seen: bool) -> dict[str, float]:
        seen.append({key: value.clone() for key, value in ranker.likelihood.trained().items()})
        rankers.append(ranker)
        return {"NDCG@10": [0.1, 0.3, 0.2, 0.2][len(seen) - 1], "nll": 1.0}

    monkeypatch.setattr("genrec.model.fitting.evaluate_step", evaluate_step)
    kept: list[dict[str, torch.Tensor]] = []
    rankers: list[Ranker] = []
    merge = Backbone.merge_for_inference
    monkeypatch.setattr(
        Backbone,
        "merge_for_inference",
        lambda self: (kept.append(rankers[-1].likelihood.trained()), merge(self)),
    )
    model = GenRec(backbone=tiny_backbone, patience=2, eval_steps=2, **SMALL)
    model.fit(split.train, split.valid, epochs=9, progress=False)
    assert (model.training.steps, model.training.best_step, len(seen)) == (8, 4, 4)
    assert [look["eval_NDCG@10"] for look in model.training.evaluations] == [0.1, 0.3, 0.2, 0.2]
    for name, value in seen[1].items():
        torch.testing.assert_close(kept[-1][name], value)


def test_patience_needs_validation_users(tiny_backbone: str) -> None:
    with pytest.raises(GenRecError, match=r"patience .* needs validation users"):
        GenRec(backbone=tiny_backbone, patience=1).fit(make_dataset(), progress=False)


@pytest.mark.parametrize(("layers", "context_layers"), [(1, None), (None, None), (None, 1)])
@pytest.mark.slow
def test_full_tuning_saves_loads_and_resumes_as_a_model_of_its_own(
    tiny_backbone: str, layers: int | None, context_layers: int | None, tmp_path: Path
) -> None:
    split = leave_last_out(make_dataset())
    settings = {**SMALL, "backbone": tiny_backbone, "tuning": "full", "trained_layers": layers}
    model = GenRec(**settings, context_layers=context_layers)
    model.fit(split.train, split.valid, epochs=2, progress=False)
    before, after = model.info["valid_log_likelihood"]
    # The one layer that sees the history in a model of two learns too slowly to compare.
    assert after > before or context_layers == 1
    model.save_pretrained(tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()
    loaded = GenRec.from_pretrained(tmp_path / "run")
    found = loaded.recommend_batch(split.test.histories, 5)
    expected = model.recommend_batch(split.test.histories, 5)
    assert_same_lists(found, expected)


def test_gradient_checkpointing_changes_nothing_but_memory(tiny_backbone: str) -> None:
    train = leave_last_out(make_dataset()).train
    plain, saving = (
        GenRec(backbone=tiny_backbone, gradient_checkpointing=saving, trained_layers=None, **SMALL)
        .fit(train, epochs=1, progress=False)
        .training.log
        for saving in (False, True)
    )
    losses = [[entry["loss"] for entry in log] for log in (plain, saving)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "full-vocabulary"},
        {"loss_temperature": 2.0},
        {"loss_temperature": "adaptive"},
        {"schedule": "cosine", "rslora": True, "lora_targets": ("q_proj", "v_proj")},
    ],
)
@pytest.mark.slow
def test_other_recipes_learn_too(tiny_backbone: str, settings: dict[str, object]) -> None:
    split = leave_last_out(make_dataset(users=120))
    model = GenRec(
        backbone=tiny_backbone, prior="none", learning_rate=1e-2, **{**SMALL, **settings}
    )
    model.fit(split.train, split.valid, epochs=4, progress=False)
    before, after = model.info["valid_log_likelihood"]
    assert after > before + 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it works")
def test_four_bits_need_a_gpu(tiny_backbone: str) -> None:
    model = GenRec(backbone=tiny_backbone, quantization="4bit", **SMALL)
    with pytest.raises(GenRecError, match=r"needs a CUDA GPU\. Set quantization=none"):
        model.fit(make_dataset(users=8), progress=False)


def test_a_tracker_that_is_missing_is_named(tiny_backbone: str) -> None:
    model = GenRec(backbone=tiny_backbone, report_to="wandb", **SMALL)
    with pytest.raises(GenRecError, match=r"report_to=wandb.*wandb"):
        model.fit(make_dataset(users=8), epochs=1, progress=False)


def test_the_wall_clock_ends_training(tiny_backbone: str) -> None:
    train = leave_last_out(make_dataset()).train
    model = GenRec(backbone=tiny_backbone, **SMALL).fit(train, minutes=0.02, progress=False)
    assert model.training.seconds < 10
    assert model.training.steps > 5


def test_tensorboard_logs_stay_in_the_run_folder(tiny_backbone: str, tmp_path: Path) -> None:
    train = leave_last_out(make_dataset(users=8)).train
    model = GenRec(backbone=tiny_backbone, report_to="tensorboard", **SMALL)
    model.fit(train, epochs=1, output=tmp_path, progress=False)
    model.save_pretrained(tmp_path)
    assert list((tmp_path / "logs").glob("events.*"))
    assert not (tmp_path / "checkpoints").exists()
