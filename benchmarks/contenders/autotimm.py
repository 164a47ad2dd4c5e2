"""AutoTimm's classifier, data module and trainer with their defaults, without the search for a learning rate."""

from turns import turn_each_epoch

from contenders.inputs import composed, files


def train(overrides: list[str], folder: str, frozen: bool, precision: str) -> None:
    """ResNet-18 with random weights. AutoTimm augments, compiles the model and loads with up to 4 workers."""
    from autotimm import AutoTrainer, BackboneConfig, ImageClassifier, ImageDataModule, MetricConfig

    accuracy = MetricConfig("accuracy", "torchmetrics", "Accuracy", {"task": "multiclass"}, ["train", "val"])
    data = ImageDataModule(files(overrides, folder), image_size=150, batch_size=composed(overrides).data.batch_size)
    backbone = BackboneConfig("resnet18", pretrained=False)
    model = ImageClassifier(backbone, 2, metrics=[accuracy], freeze_backbone=frozen)
    trainer = AutoTrainer(
        max_epochs=100000,
        devices=1,
        precision=precision,
        callbacks=[turn_each_epoch()],
        tuner_config=False,
        default_root_dir=folder,
        enable_progress_bar=False,
    )
    trainer.fit(model, datamodule=data)
