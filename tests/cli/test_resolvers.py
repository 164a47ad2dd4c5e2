import re

import pytest
from omegaconf import OmegaConf

from transfer_learning.cli.resolvers import folder_name, run_id


def test_folder_names_are_readable_and_bounded():
    assert folder_name("model=basic_cnn,data.augment=true") == "model=basic_cnn,data.augment=true"
    here, there = (folder_name(f"model.weights=../{folder}/w.pth,model.dense=[512]") for folder in ("a b", "c"))
    assert here.startswith("model.weights=w.pth,model.dense=-512-") and here[:-8] == there[:-8] and here != there
    assert folder_name("") == "defaults"
    long = [folder_name("x" * 400 + last) for last in "ab"]
    assert long[0] != long[1] and max(map(len, long)) <= 200


@pytest.mark.parametrize("path", ["/data/my photos/w.pth", "./a/w.pth", "../w.pth", "~/models/w.pth", "~me/w.pth"])
def test_of_a_path_only_the_last_part_is_kept(path):
    name = folder_name(f"seed=1,model.weights={path},x=2")
    assert re.fullmatch(r"seed=1,model\.weights=w\.pth,x=2-[0-9a-f]{8}", name)


@pytest.mark.parametrize(
    "overrides, start",
    [
        ("monitor=val/f1", "monitor=val-f1"),
        ("monitor=val/acc,seed=1", "monitor=val-acc,seed=1"),
        ("model.backbone=timm/convnext_tiny", "model.backbone=timm-convnext_tiny"),
        ("experiment=a/b/c", "experiment=a-b-c"),
    ],
)
def test_values_with_a_slash_that_are_no_paths_are_kept(overrides, start):
    assert re.fullmatch(re.escape(start) + "-[0-9a-f]{8}|" + re.escape(start), folder_name(overrides))


def test_names_of_different_overrides_differ():
    pairs = ["monitor=val/f1", "monitor=val/acc", "monitor=train/f1", "root=/a/f1", "root=/b/f1", "root=f1"]
    pairs += ["a='x y'", "a='x:y'", "a=x-y", "a=x y"]
    assert len({folder_name(each) for each in pairs}) == len(pairs)


def test_on_windows_names_are_shorter_and_those_that_were_short_are_the_same():
    """A path may have 260 characters there: of the folder of sweeps, about 90, and of the file in it, about 60."""
    for overrides in ("model=basic_cnn,data.augment=true", "root=/a/b", "a='x y'", "a=" + "x" * 78, "é" * 45):
        assert folder_name(overrides, 90) == folder_name(overrides, 200)
    names = [folder_name(f"{text}{last}", 90) for text in ("x" * 400, "é" * 90, "x" * 90) for last in "ab"]
    assert len(set(names)) == len(names) and all(80 <= len(name.encode()) <= 90 for name in names)


def test_names_are_bounded_in_bytes():
    """A file system allows 255 bytes; a character may have four."""
    for character in "é猫😀":
        name = folder_name("a=" + character * 150)
        assert len(name.encode()) <= 200 and name.encode().decode() == name
    assert folder_name("a=" + "é" * 90) == "a=" + "é" * 90


@pytest.mark.parametrize("overrides", ["root='/my photos/$HOME'", 'a=["x y",*]', "a=ä;b", "name=a\nb"])
def test_no_character_needs_quotes_in_a_shell(overrides):
    assert not re.search(r"[\s'\"$;&|<>()\[\]*?\\/]", folder_name(overrides))


@pytest.mark.parametrize(
    "expression, value",
    [
        ("${if_else:true,1e-4,2}", 1e-4),
        ("${if_else:null,1,false}", False),
        ("${if_null:null,1}", 1),
        ("${if_null:0,1}", 0),
        ("${epochs_of_share:30,1.0}", 30),
        ("${epochs_of_share:30,1}", 30),
        ("${epochs_of_share:30,0.01}", 300),
        ("${epochs_of_share:10,0.3}", 18),
        ("${epochs_of_share:30,0}", 30),  # the data module refuses it
        ("${epochs_of_share:30,all}", 30),
        ("${monitor_mode:val/loss}", "min"),
        ("${monitor_mode:val/acc}", "max"),
        ("${model_name:vgg16,null}", "vgg16_frozen"),
        ("${model_name:vgg16,block5}", "vgg16_finetuned_block5"),
        ("${input_spec:image_size,efficientnet_v2_s,DEFAULT}", 384),
        ("${input_spec:interpolation,efficientnet_b0,null}", "bicubic"),
    ],
)
def test_functions_of_the_config(expression, value):
    assert OmegaConf.create({"key": expression}).key == value


def test_ids_of_runs_are_bounded_and_different_for_each_job_of_each_sweep():
    long = [f"/a/sweep/{'x' * 200}{last}" for last in "yz"]
    folders = ["/a/sweep/lr=0.1", "/a/sweep/lr=0,1", "/a/other/lr=0.1", "/a/first sweep/lr=0.1", *long]
    ids = [OmegaConf.create({"key": "${run_id:${folder}}", "folder": folder}).key for folder in folders]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,109}", each) for each in ids)
    assert run_id("/moved/sweep/lr=0.1") == ids[0] and ids[0].startswith("sweep-lr-0-1-")
