"""The page of errors, and what the terminal says beside it."""

import json
import logging
import re
from pathlib import Path

import pytest

from mirror import MirrorError
from mirror.report.errors import check_plotly
from tests.helpers import go, metrics


def test_page_of_a_run(tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One file that loads nothing, texts of users are only text in it, and the terminal tells the same."""
    (tmp_path / "sts").mkdir()
    lines = (eval_dir / "sts" / "stsb-dev.tsv").read_text(encoding="utf-8").splitlines()
    lines[1] = "5\t<script>alert(1)</script> & [bold]\tStocks fell by 3 % on Monday, did they not?"
    ten = "\n".join(lines[:11]) + "\n"  # all of them are among the worst ten
    (tmp_path / "sts" / "stsb-dev.tsv").write_text(ten, encoding="utf-8")
    overrides = ["eval.sets=[stsb-dev]", f"eval.data_dir='{tmp_path}'", "eval.errors=true"]
    with caplog.at_level(logging.INFO):
        go(tiny_bert, tmp_path / "run", *overrides, "eval.neighbours=[guitar]")
    html = (tmp_path / "run" / "errors.html").read_text(encoding="utf-8")
    own = html[: html.index("</script>")] + html[html.rindex("<script>") :]  # without plotly's own code
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=", html)
    assert "<script>alert(1)" not in own
    assert "&lt;script&gt;alert(1)" in own
    for said in ("raw cls", "tuned", "guitar", "Largest residuals of tuned", "gold score"):
        assert said in own
    plots = json.loads(html[html.index('id="plots">') + len('id="plots">') : html.index("</script>")])
    assert [plot["title"].split(":")[0] for plot in plots] == ["raw cls", "tuned", "Residuals"]
    assert [len(plot["traces"][0]["x"]) for plot in plots[:2]] == [10, 10]
    assert [sum(bars["y"]) for bars in plots[2]["traces"]] == [10, 10]
    scores = metrics(tmp_path / "run")["scores"]
    assert plots[1]["title"] == f"tuned: {scores['tuned']['stsb-dev']['all']:.2f}†"
    assert "stsb-dev: largest residuals of tuned" in caplog.text
    assert "Nearest neighbours" in caplog.text
    assert "[bold]" in caplog.text
    assert "nan" not in re.sub(r"<[^>]*>", "", own).replace("&lt;script&gt;", "").lower()
    assert metrics(tmp_path / "run")["status"] == "finished"


def test_without_plotly_it_is_told_before_the_run(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    with pytest.raises(MirrorError, match=r"pip install 'mirror-encoders\[report\]'"):
        check_plotly()
    with pytest.raises(MirrorError, match="plotly"):
        go(tiny_bert, tmp_path / "run", "eval.errors=true")
    assert "seconds" in metrics(tmp_path / "run")
    assert "train" not in metrics(tmp_path / "run")["seconds"]
