"""The notebook runs in a real kernel, and shows one line where one is printed, and a page where a result is shown."""

import re
from html import unescape
from pathlib import Path

import nbclient
import nbformat

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def test_the_notebook_runs_and_shows_pages(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code), "outputs are no source"
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    printed = ["".join(output.text for output in cell.outputs if output.output_type == "stream") for cell in code]
    assert [text.count("\n") for text in printed if text.startswith("<")] == [1, 1], (
        "a problem and a result: a line each"
    )
    (shown,) = [output for cell in code for output in cell.outputs if output.output_type == "execute_result"]
    assert shown.data["text/plain"].startswith("<Eigs of Sequential: smallest ")
    assert len(shown.data["text/plain"]) < 400
    page = unescape(re.search(r'srcdoc="([^"]*)"', shown.data["text/html"])[1])
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert len(page) < 1_000_000
    assert not any(
        output.output_type == "error" or output.get("name") == "stderr" for cell in code for output in cell.outputs
    )
