from __future__ import annotations

import pytest

from genrec.cli.options import parse_assignments
from genrec.config import Config
from genrec.errors import ConfigError


def test_unknown_setting_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'lora_rnak'.*lora_rank"):
        Config.create(lora_rnak=8)


def test_value_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'learning_rate'.*greater than 0.*got -1"):
        Config.create(learning_rate=-1)
    with pytest.raises(ConfigError, match="'template'"):
        Config.create(template="poem")


def test_paper_recipe_and_overrides() -> None:
    paper = Config.create(recipe="paper", epochs=1)
    assert (paper.lora_rank, paper.lora_alpha, paper.lora_dropout) == (8, 16, 0.05)
    assert paper.lora_targets == ("q_proj", "v_proj")
    assert (paper.learning_rate, paper.batch_size, paper.max_tokens) == (3e-4, 128, 256)
    assert (paper.epochs, paper.prior, paper.decoding) == (1, "none", "beam")


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="set prior=none"):
        Config.create(recipe="paper", prior="popularity")
    with pytest.raises(ConfigError, match="multiple of microbatch_size"):
        Config.create(batch_size=10, microbatch_size=4)


def test_assignments_from_the_command_line() -> None:
    settings = parse_assignments(
        ["learning_rate=1e-3", "lora_targets=[q_proj, v_proj]", "layers=6"]
    )
    config = Config.create(**settings)
    assert config.learning_rate == 0.001
    assert config.lora_targets == ("q_proj", "v_proj")
    assert config.layers == 6
    with pytest.raises(ConfigError, match="key=value"):
        parse_assignments(["layers"])


def test_config_is_frozen_and_round_trips() -> None:
    config = Config.create(seed=3)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 4
    assert Config.create(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"context_layers": "some"},
            r"^setting 'context_layers': [^;]* or [^;]*'auto'[^;]*'some'\)$",
        ),
        (
            {"context_layers": 4, "prior": "none", "loss": "all-tokens"},
            r"^a loss other than catalogue, [^;]*; set context_layers=null$",
        ),
    ],
)
def test_a_wrong_value_is_named_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.create(**settings)
