import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, SENTENCES


@pytest.mark.slow
def test_training_step_compares_three_ways_of_learning_from_the_same_texts(tiny_bert: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.training_step", "--rounds", "2", "--batch", "8"]
    command += ["--model", str(tiny_bert), "--data", str(texts), "--results", str(tmp_path / "results")]

    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)

    (path,) = (tmp_path / "results").iterdir()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path.name.endswith("-training_step-bert-cpu.json")
    assert content["texts"]["kept"] == len(SENTENCES)
    results = content["results"]
    assert list(results) == ["mirror", "authors", "simcse"]
    assert all(name in run.stdout for name in results)
    for result in results.values():
        assert all(math.isfinite(loss) for loss in result["losses"])
        assert result["total_seconds"]["median"] > 0
        assert result["peak_mib"] >= result["loaded_mib"] > 0
    assert results["mirror"]["times_mirror"]["median"] == 1
    # The same loss over the same vectors, but for dropout and the masked spans: the contenders do the same work.
    assert results["authors"]["losses"][0] == pytest.approx(results["mirror"]["losses"][0], rel=0.2)
