"""notebooks/start.ipynb and the lines of docs/notebook.md run."""

import re

import nbformat
from nbclient import NotebookClient

from transfer_learning.cli.project import PROJECT

NOTEBOOK = PROJECT / "notebooks" / "start.ipynb"


def test_the_notebook_trains_predicts_and_explains(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output["data"]["text/plain"] for output in outputs if output["output_type"] == "execute_result"]
    validation, test = map(float, texts[0].strip("()").split(","))
    assert 0.6 < validation <= 1 and 0.6 < test <= 1
    assert "cat" in texts[1] or "dog" in texts[1]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert (tmp_path / "start-run" / "metrics.json").exists()


def test_the_lines_of_the_page_run_as_printed(tmp_path, write_image, monkeypatch):
    """With a smaller backbone without weights, one epoch, and then one more."""
    page = (PROJECT / "docs" / "notebook.md").read_text(encoding="utf-8")
    page = page.replace('backbone="resnet50"', 'backbone="shufflenet_v2_x0_5", weights=None').replace("(150)", "(32)")
    page = page.replace("size=150", "size=32").replace("new_trainer(10)", "new_trainer(1)").replace("(20)", "(2)")
    train_lines, resume_lines, predict_lines = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for number in range(60):
        write_image(tmp_path / "flowers" / ("rose", "tulip")[number % 2] / f"{number}.png", number)
    write_image(tmp_path / "photo.jpg", 60)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(train_lines, names)
    assert names["metrics"]["epochs"] == 1
    exec(resume_lines, names)
    assert names["metrics"]["epochs"] == 2
    files = {path.name for path in (tmp_path / "flowers-run" / "checkpoints").iterdir()}
    assert files == {"best.ckpt", "last.ckpt"}
    exec(predict_lines, names)
