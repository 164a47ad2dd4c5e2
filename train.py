"""Trains a model: python train.py model=vgg16_frozen data.augment=true"""

import hydra
from omegaconf import DictConfig

from transfer_learning.cli import resolvers, shell


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    assert resolvers  # a launcher's process imports what this function names before it composes its job
    return shell.run(cfg)


if __name__ == "__main__":
    shell.call(main)
