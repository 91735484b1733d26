"""The tables at the end of a run."""

import pytest

from mirror.evaluation.sets import Score
from mirror.evaluation.sets.sts import AVERAGED, sts_average
from mirror.report.console import time_line
from mirror.report.terminal import protocol_table, score_table


def score(name: str, value: float, pairs: int = 10, **more: float) -> Score:
    return Score(name, pairs, {"all": value, **more})


def row(table: str, name: str) -> list[str]:
    """The cells of a row after its name."""
    (line,) = [line.strip() for line in table.splitlines() if line.strip().startswith(name)]
    return line.removeprefix(name).split()


def test_gain_is_over_the_best_of_the_others() -> None:
    columns = {
        "raw cls": {"sts12": score("sts12", 20.0, 3108), "sickr-test": score("sickr-test", 60.0, 4906)},
        "raw mean": {"sts12": score("sts12", 30.5, 3108), "sickr-test": score("sickr-test", 55.0, 4906)},
        "tuned cls": {"sts12": score("sts12", 69.126, 3108), "sickr-test": score("sickr-test", 58.0, 4906)},
    }
    table = score_table(columns, "Before and after")
    assert table.splitlines()[0].strip() == "Before and after"
    assert row(table, "sts12") == ["3108", "20.00", "30.50", "69.13", "+38.63"]
    assert row(table, "sickr-test") == ["4906", "60.00", "55.00", "58.00", "-2.00"]
    assert "average" not in table  # five of the seven are missing


def test_one_column_has_no_gain() -> None:
    table = score_table({"mean": {"sts12": score("sts12", 20.0)}}, "Scores")
    assert "gain" not in table
    assert row(table, "sts12") == ["10", "20.00"]


def test_average_of_the_seven_leaves_out_other_sets() -> None:
    first = {name: score(name, float(10 * i)) for i, name in enumerate(AVERAGED)}
    second = {name: score(name, float(10 * i + 7)) for i, name in enumerate(AVERAGED)}
    first["stsb-dev"], second["stsb-dev"] = score("stsb-dev", 99.0), score("stsb-dev", 98.0)
    table = score_table({"raw": first, "tuned": second}, "Scores")
    assert row(table, "average of 7") == ["30.00", "37.00", "+7.00"]
    assert row(table, "stsb-dev") == ["10", "99.00", "98.00", "-1.00"]
    assert row(protocol_table(first, "Scores"), "average of 7") == ["30.00"]
    assert sts_average({name: found.value for name, found in first.items()}) == pytest.approx(30.0)
    del first["sts14"]
    assert sts_average({name: found.value for name, found in first.items()}) is None


def test_protocols_side_by_side() -> None:
    scores = {"sts12": score("sts12", 50.0, mean=40.126, wmean=45.0), "stsb-test": score("stsb-test", 60.0)}
    table = protocol_table(scores, "By protocol")
    assert row(table, "sts12") == ["10", "50.00", "40.13", "45.00"]
    assert row(table, "stsb-test") == ["10", "60.00", "–", "–"]


def test_times_in_one_line() -> None:
    assert time_line({"read": 0.04, "train": 12.26}) == "read 0.0 s  train 12.3 s"
