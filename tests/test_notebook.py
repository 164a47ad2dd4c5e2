"""notebooks/start.ipynb runs as it is."""

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
