import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from transfer_learning.engine.calibration import fit_temperature, read_temperature, temperature_file, write_temperature
from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.files import file_sha256


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [0.2, 1.0, 8.0])
def test_temperature_is_that_by_which_the_logits_are_too_large(classes, scale):
    """Labels are sampled with the probabilities of the logits; then the logits are scaled."""
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(4000, 1 if classes == 2 else classes, generator=generator)
    objective = CrossEntropy()
    labels = torch.multinomial(objective.probabilities(logits), 1, generator=generator)[:, 0]
    found = fit_temperature(scale * logits, labels, objective)
    assert found == pytest.approx(scale, rel=0.06)

    def loss(temperature):  # the same by another route: log of the softmax in NumPy
        scaled = (scale * logits / temperature).double().numpy()
        scaled = np.concatenate([-scaled / 2, scaled / 2], axis=1) if classes == 2 else scaled
        log_sum = np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1)) + scaled.max(1)
        return (log_sum - scaled[np.arange(4000), labels]).mean()

    best = minimize(lambda x: loss(float(np.exp(x[0]))), [0.0], method="Nelder-Mead", options={"xatol": 1e-6})
    assert found == pytest.approx(float(np.exp(best.x[0])), rel=1e-3)


@pytest.mark.parametrize("margin", [0.01, 0.3, 1.0, 3.0, 10.0, 90.0])
@pytest.mark.parametrize("classes", [2, 3, 20])
def test_without_a_mistake_there_is_no_temperature(classes, margin):
    """Each smaller temperature has a smaller loss, until it is rounded to zero."""
    logits = margin * torch.eye(classes)
    logits = torch.tensor([[-margin], [margin]]) if classes == 2 else logits
    with pytest.raises(UserError, match="no temperature fits: the validation split has no mistakes"):
        fit_temperature(logits, torch.arange(classes), CrossEntropy())


def test_temperature_is_kept_beside_the_checkpoint(tmp_path):
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    assert read_temperature(checkpoint) == 1.0
    write_temperature(checkpoint, 1.75, file_sha256(checkpoint))
    assert read_temperature(checkpoint) == 1.75 and temperature_file(checkpoint) == tmp_path / "best.temperature.json"
    before = file_sha256(checkpoint)
    checkpoint.write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"best\.ckpt: replaced by a training while its predictions were computed"):
        write_temperature(checkpoint, 1.5, before)
    with pytest.raises(UserError, match=r"best\.temperature\.json: this calibration is of another checkpoint"):
        read_temperature(checkpoint)
    temperature_file(checkpoint).write_text("{}")
    with pytest.raises(UserError, match=r"best\.temperature\.json: this calibration is damaged"):
        read_temperature(checkpoint)
