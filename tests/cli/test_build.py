import pytest

from transfer_learning.cli.build import check_added_keys

TINY = ["data=cartoons", "data.image_size=32"]


@pytest.mark.parametrize(
    "added, hint",
    [
        ("+batch_size=10", "nothing reads batch_size; did you mean data.batch_size?"),
        ("++batch_size=10", "nothing reads batch_size; did you mean data.batch_size?"),
        ("+foo.batch_size=10", "nothing reads foo.batch_size; did you mean data.batch_size?"),
        ("+recipe.lrs=1", "nothing reads recipe.lrs; did you mean"),
        ("+choices.x=1", "nothing reads choices.x."),
        ("+data.x=1", "data.x=1: nothing reads it"),
        ("+optimizer.x=1", "optimizer.x=1: "),
    ],
)
def test_an_added_key_that_nothing_reads_is_refused(tmp_path, in_process, added, hint):
    code, output = in_process(*TINY, f"hydra.run.dir={tmp_path}/run", added)
    assert code == 1 and hint in output and "Traceback" not in output, output


def test_keys_that_something_reads_may_be_added(composed):
    added = ["++recipe.lr=1e-4", "+trainer.max_steps=3", "+data/augmentation@data.augmentation=none", "++seed=1"]
    check_added_keys(composed(*TINY), added)
