"""Trains a model: python train.py model=vgg16_frozen data.augment=true"""

import hydra
from omegaconf import DictConfig

from transfer_learning.cli import shell


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    return shell.run(cfg)  # a launcher's process imports `shell` with this function, and with it the resolvers of conf/


if __name__ == "__main__":
    shell.call(main)
