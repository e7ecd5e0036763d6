"""`cappella card` of a folder: what its files alone tell."""

from pathlib import Path

import yaml

from cappella.bundle import own_card
from support.weights_folder import TINY, Shapes, llama_shapes, write_model


def test_a_card_of_a_folder_has_the_size_of_its_encoder(tmp_path: Path) -> None:
    encoder: Shapes = {
        "model.vision_tower.layers.0.fc1.weight": ("BF16", (4096, 64)),
        "model.multi_modal_projector.linear.weight": ("BF16", (64, 64)),
    }
    config = {**TINY, "vision_config": {}}
    weights = write_model(tmp_path / "ann", config, shapes={**llama_shapes(config), **encoder})
    card = yaml.safe_load(own_card.text(str(weights)))
    assert (card["images"], card["encoder_bytes"]) == (True, 2 * (4096 * 64 + 64 * 64))
    plain = write_model(tmp_path / "bob")
    assert yaml.safe_load(own_card.text(str(plain)))["encoder_bytes"] == 0
