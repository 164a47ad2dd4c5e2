"""The tutorial's code, in Keras 3 on tensorflow-cpu."""

from turns import turn

from contenders.inputs import photographs


def train(overrides: list[str], folder: str, arrays: str, policy: str = "float32") -> None:
    """The tutorial's layers and settings. Keras's own generator augments, image by image.

    `arrays`: the file of `inputs.arrays`. `policy`: of Keras's dtypes, such as "mixed_bfloat16".
    """
    import keras  # TensorFlow and torch do not work in one process
    import numpy as np
    from keras import layers
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    keras.config.set_dtype_policy(policy)
    saved = np.load(arrays)
    x = {split: saved[f"x_{split}"].astype(np.float32) / 255 for split in ("train", "val")}
    y = {split: saved[f"y_{split}"].astype(np.float32) for split in ("train", "val")}
    vgg, augmented, basic = "vgg16" in overrides[0], "data.augment=true" in overrides, "basic" in overrides[0]
    frozen = []
    if vgg and augmented:
        frozen = [keras.applications.VGG16(include_top=False, weights=None, input_shape=(150, 150, 3))]
        frozen[0].trainable = False
    elif vgg:  # random numbers instead of features: the time does not depend on them
        x = {split: np.random.rand(len(y[split]), 4, 4, 512).astype(np.float32) for split in x}
    widths = [] if vgg else (16, 64, 128) if basic else (16, 64, 128, 128)
    maps = [layer for width in widths for layer in (layers.Conv2D(width, 3, activation="relu"), layers.MaxPooling2D(2))]
    dense = [
        [layers.Dense(512, activation="relu")] + ([] if basic else [layers.Dropout(0.3)])
        for _ in range(1 if basic else 2)
    ]
    head = [
        layers.Flatten(),
        *[layer for each in dense for layer in each],
        layers.Dense(1, activation="sigmoid", dtype="float32"),
    ]
    model = keras.Sequential([keras.Input(x["train"].shape[1:]), *frozen, *maps, *head])
    model.compile(keras.optimizers.RMSprop(1e-4, rho=0.9, epsilon=1e-7), "binary_crossentropy", metrics=["accuracy"])
    size = int(saved["batch_size"])
    batches = dict(x=x["train"], y=y["train"], batch_size=size)
    if augmented:
        change = dict(zoom_range=0.3, rotation_range=50, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2)
        generator = ImageDataGenerator(horizontal_flip=True, fill_mode="nearest", **change)
        batches = dict(x=generator.flow(x["train"], y["train"], batch_size=size))
    while True:
        turn()
        model.fit(**batches, validation_data=(x["val"], y["val"]), validation_batch_size=size, epochs=1, verbose=0)


def decode(originals: str, folder: str) -> None:
    from keras.utils import img_to_array, load_img

    while True:
        turn()
        for path in photographs(originals):
            img_to_array(load_img(path, target_size=(150, 150)))
