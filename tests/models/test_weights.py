import hashlib

import pytest
import torch

from transfer_learning.models.weights import read_state_dict
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.files import file_sha256


class Harmful:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_state_dict_and_checksum_of_a_file(tmp_path):
    path, state = tmp_path / "weights.pth", {"layer.weight": torch.rand(3, 4), "layer.bias": torch.rand(3)}
    torch.save(state, path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    for sha256 in (None, expected):
        found, digest = read_state_dict(path, str(path), sha256)
        assert digest == expected == file_sha256(path)
        assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


def test_other_checksum_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.rand(2)}, path)
    with pytest.raises(UserError, match=f"{file_sha256(path)}, expected 0123: .*not the weights of the training"):
        read_state_dict(path, "mine", "0123")


@pytest.mark.parametrize("content", [{"weight": Harmful()}, {"weight": 1.0}, [torch.rand(2)], "weights"])
def test_files_that_hold_no_state_dict_are_refused_and_run_no_code(tmp_path, capsys, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ArgumentError, match="^weights='mine': .*not a state_dict that can be read safely") as error:
        read_state_dict(path, "mine")
    assert "\n" not in str(error.value) and "never be printed" not in capsys.readouterr().out
