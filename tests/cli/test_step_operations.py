"""What the steps of the tutorial's systems ask of a device, found on a CPU."""

from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from transfer_learning.cli.build import build, build_data
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.training import frozen_part

READ_BACK = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "unique_dim", "_unique2"}
UNSEEN = {"view", "_unsafe_view", "permute", "unbind", "unsqueeze", "squeeze", "detach", "t", "transpose", "expand"}
UNSEEN |= {"select", "slice", "as_strided", "alias", "split", "_reshape_alias", "_record_function_enter_new"}
UNSEEN |= {"_record_function_exit", "lift_fresh"}
SIZES = ["data=cartoons", "data.image_size=64", "data.batch_size=8", "data.train_per_class=16"]
SIZES += ["data.val_per_class=4", "data.test_per_class=4", "trainer=cpu"]
# The operations of a step that a device would launch, and four more for other versions of torch.
BUDGETS = {
    "basic_cnn": 76,
    "regularised_cnn": 98,
    "regularised_cnn_augmented": 140,
    "vgg16_frozen": 71,
    "vgg16_frozen_augmented": 148,
}


class Operations(TorchDispatchMode):
    """Counts torch's operations."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **kwargs or {})


class OfEachBatch(pl.Callback):
    """Counts the operations of whole steps, from the preparation of a batch to the one of the next."""

    def __init__(self):
        self.steps, self.running = [], None

    def on_train_batch_start(self, trainer, model, batch, index):
        if self.running is None:
            self.running = Operations()
            self.running.__enter__()

    def on_train_batch_end(self, trainer, model, outputs, batch, index):
        self.steps.append(self.running.counts)
        self.running.counts = Counter()
        if len(self.steps) == 3:  # the fourth batch is prepared
            self.running.__exit__(None, None, None)


@pytest.mark.parametrize("system", BUDGETS)
def test_a_step_reads_nothing_back_and_has_no_more_operations_than_before(composed, quiet_trainer, tmp_path, system):
    weights = ["model.weights=null"] if "vgg16" in system else []
    cfg = composed(f"system={system}", *SIZES, *weights, f"data.cache_dir={tmp_path}")
    data = build_data(cfg)
    data.setup()
    network = build(cfg, "model", num_classes=2, image_size=64)
    model = Classifier(network, data.class_names, data.preprocessing, build(cfg, "optimizer"))
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[counted := OfEachBatch()])
    data.store_features(frozen_part(model, trainer), ["train"])
    trainer.fit(model, datamodule=data)
    step = counted.steps[1]  # in the first, the optimizer makes its state
    assert counted.steps[2] == step
    assert not READ_BACK & step.keys(), f"{system}: each step waits for the device: {READ_BACK & step.keys()}"
    launched = {name: count for name, count in step.most_common() if name not in UNSEEN}
    assert sum(launched.values()) <= BUDGETS[system], f"{system}: {sum(launched.values())} operations: {launched}"


def test_a_value_that_is_read_back_is_noticed():
    with Operations() as operations:
        torch.ones(3).sum().item()
    assert READ_BACK & operations.counts.keys()
