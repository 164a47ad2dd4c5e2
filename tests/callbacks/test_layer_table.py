import pytest
import torch
from torch import nn

from transfer_learning.callbacks.layer_table import LayerTable, layer_table
from transfer_learning.models.cnn import CNN
from transfer_learning.models.pretrained import Pretrained


def test_layers_shapes_and_parameters_are_those_that_keras_prints():
    head = dict(pool="none", layer_norm=False, dense=[512, 512], dropout=0.3)
    table = layer_table(Pretrained(2, 150, "vgg16", weights=None, **head), 150)
    lines = {line.split()[0]: line for line in table.splitlines()}
    for name, shape, parameters, state in [
        ("frozen.block1.0", "(N, 64, 150, 150)", "1,792", "frozen"),  # block1_conv1
        ("frozen.block5.28", "(N, 512, 9, 9)", "2,359,808", "frozen"),  # block5_conv3
        ("frozen.block5.30", "(N, 512, 4, 4)", "0", ""),  # block5_pool
        ("trainable.head.1", "(N, 512)", "4,194,816", "trainable"),
        ("trainable.head.7", "(N, 1)", "513", "trainable"),
    ]:
        assert shape in lines[name] and lines[name].endswith(f" {parameters}  {state}".rstrip())
    assert table.endswith("trainable parameters: 4,457,985   frozen parameters: 14,714,688")


def test_network_is_unchanged():
    network = Pretrained(2, 32, "vgg16", weights=None).train()
    layer_table(network, 32)
    assert network.trainable.training and not network.frozen.training
    assert not any(layer._forward_hooks for layer in network.modules())


def test_no_hook_is_left_if_the_image_does_not_fit():
    network = CNN(2, 16, [2], [])
    with pytest.raises(RuntimeError):
        layer_table(network, 8)
    assert not any(layer._forward_hooks for layer in network.modules())


def test_layer_that_returns_several_tensors_has_no_shape():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = nn.LSTM(24, 4, batch_first=True)

        def forward(self, images):
            return self.recurrent(images.transpose(1, 2).flatten(2))[0]

    assert "recurrent (LSTM)  tuple " in layer_table(Rows(), 8)


def test_a_second_fit_of_the_same_layers_shows_their_totals_alone(small_data, classifier, quiet_trainer, caplog):
    caplog.set_level("DEBUG")
    texts = []
    for channels in ([3, 5], [3, 5], [3]):
        caplog.clear()
        network = CNN(2, 32, channels=channels, dense=[7])
        model = classifier(network, optimizer=lambda groups: torch.optim.SGD(groups, 0.1))
        quiet_trainer(max_steps=1, callbacks=[LayerTable()]).fit(model, datamodule=small_data())
        texts.append([record.getMessage() for record in caplog.records if record.name.endswith("rank_zero")])
        (table,) = [each.getMessage() for each in caplog.records if each.getMessage().startswith("---")]  # or details
        assert table == layer_table(network, 32)
    assert f"layers as above; {layer_table(CNN(2, 32, channels=[3, 5], dense=[7]), 32).splitlines()[-1]}" in texts[1]
    assert [any(text.startswith("---") for text in each) for each in texts] == [True, False, True]
