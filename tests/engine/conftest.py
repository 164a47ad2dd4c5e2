"""Fixtures that tests of the engine share."""

import pytest
import torch

from transfer_learning.models.pretrained import Pretrained


@pytest.fixture
def fit(quiet_trainer):
    """fit(model, data, epochs, resume, **settings) -> the trainer, after the fit."""

    def run(model, data, epochs=2, resume=None, **settings):
        trainer = quiet_trainer(max_epochs=epochs, **settings)
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
        return trainer

    return run


@pytest.fixture
def pretrained(classifier):
    """pretrained(**settings): a ResNet-18 with random weights, always the same, and dropout; SGD with momentum."""

    def make(schedule=None, optimizer=lambda groups: torch.optim.SGD(groups, 0.01, momentum=0.9), **settings):
        torch.manual_seed(0)
        defaults = dict(backbone="resnet18", weights=None, layer_norm=True, dropout=0.3)
        defaults |= dict(unfreeze_at_epoch=0, backbone_lr_scale=1.0)
        return classifier(Pretrained(2, 32, **defaults | settings), optimizer=optimizer, schedule=schedule)

    return make
