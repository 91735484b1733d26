"""Texts are read from every kind of source, cleaned, counted and sampled; what cannot be read is said in a sentence."""

import gzip
import json
import os
import socket
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants as hub_constants
import pytest
import zstandard

from mirror.config import DataConfig, Sample
from mirror.data.rows import in_memory
from mirror.data.texts import LongPairs, TextTable, choose, clean, read_texts
from mirror.errors import MirrorError

Write = Callable[[str, str | bytes], Path]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}

WORDS = {"_target_": "mirror.data.sources.words.frequent_words"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, content: str | bytes) -> Path:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(COMPRESS.get(Path(name).suffix, bytes)(raw))
        return tmp_path / name

    return put


def read(path: Path | str, seed: int = 0, **settings: Any) -> TextTable:
    """All of a file in its own order, unless told otherwise."""
    return read_texts(DataConfig(path=str(path), **{"size": None, "sample": Sample.first, **settings}), seed)


def texts(table: TextTable) -> list[str]:
    assert all(left == right for left, right in table.pairs)
    return [left for left, _ in table.pairs]


TABLE = [
    {"text": 'she said "no", twice', "number": "1", "remark": "x"},
    {"text": "NA", "number": "2", "remark": "y"},
    {"text": "çay ve simit", "number": "3", "remark": "z"},
]
CSV = 'text,number,remark\n"she said ""no"", twice",1,x\nNA,2,y\nçay ve simit,3,z\n'
TSV = 'text\tnumber\tremark\nshe said "no", twice\t1\tx\nNA\t2\ty\nçay ve simit\t3\tz\n'
JSONL = "".join(json.dumps(row) + "\n" for row in TABLE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.CSV", CSV),
        ("a.csv.gz", CSV),
        ("a.csv.zst", CSV),
        ("a.tsv", TSV),
        ("a.tsv.gz", TSV),
        ("a.jsonl", JSONL),
        ("a.jsonl.gz", JSONL),
        ("a.json", json.dumps(TABLE)),
        ("bom.csv", "\ufeff" + CSV),
    ],
)
def test_tables_give_their_text_column(name: str, content: str, write: Write) -> None:
    file = write(name, content)
    assert texts(read(file)) == [row["text"] for row in TABLE]
    assert texts(read(file, column="remark")) == ["x", "y", "z"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_numbers_of_a_text_table_are_texts(name: str, write: Write) -> None:
    """Such files know no types: a column that looks like numbers can still be named."""
    file = write(name, CSV if name == "a.csv" else TSV)
    assert texts(read(file, column="number")) == ["1", "2", "3"]


def test_parquet(tmp_path: Path) -> None:
    datasets.Dataset.from_list(TABLE).to_parquet(str(tmp_path / "a.parquet"))
    assert texts(read(tmp_path / "a.parquet")) == [row["text"] for row in TABLE]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst", "a", "a.dat"])
def test_plain_text_is_one_text_a_line(name: str, write: Write) -> None:
    file = write(name, 'one, two\r\n  "three\tfour  \n\nfive')
    table = read(file)
    assert texts(table) == ["one, two", '"three four', "five"]
    assert table.counts() == {"available": 4, "read": 4, "empty": 1, "duplicate": 0, "kept": 3}


def test_byte_order_mark_is_no_part_of_the_text(write: Write) -> None:
    assert texts(read(write("a.txt", "\ufeffone\ntwo\n"))) == ["one", "two"]


def test_quote_at_the_start_of_a_tsv_cell_is_text(write: Write) -> None:
    assert texts(read(write("a.tsv", 'text\tn\n"open\t1\nclosed\t2\n'))) == ['"open', "closed"]


def test_changed_file_is_read_anew(write: Write) -> None:
    """``datasets`` keeps what it read under a name that must change with the file."""
    assert texts(read(write("a.txt", "one\ntwo\n"))) == ["one", "two"]
    assert texts(read(write("a.txt", "six\nten\n"))) == ["six", "ten"]


def test_only_column_is_taken(write: Write) -> None:
    assert texts(read(write("a.csv", "remark\none\ntwo\n"))) == ["one", "two"]


@pytest.mark.parametrize("usual", ["text", "sentence"])
def test_usual_column_is_taken(usual: str, write: Write) -> None:
    assert texts(read(write("a.csv", f"id,{usual}\n1,one\n2,two\n"))) == ["one", "two"]


def test_ambiguous_columns_are_refused_with_the_choice(write: Write) -> None:
    with pytest.raises(MirrorError, match=r"data\.column.*title, remark"):
        read(write("a.csv", "title,remark\na,b\nc,d\n"))


def test_pair_column_gives_the_positive(write: Write) -> None:
    table = read(write("a.tsv", "de\ten\nHund\tdog\nKatze\tcat\n"), column="de", pair_column="en")
    assert table.pairs == [("Hund", "dog"), ("Katze", "cat")]
    assert any(left != right for left, right in table.pairs)


def test_pair_separator_gives_the_positive(write: Write) -> None:
    table = read(write("a.txt", "Hund||dog\nKatze || cat\n\nEinhorn||\n"), pair_separator="||")
    assert table.pairs == [("Hund", "dog"), ("Katze", "cat")]
    assert table.empty == 2  # a pair with one empty side is no pair


def test_same_text_with_another_positive_is_no_duplicate(write: Write) -> None:
    table = read(write("a.txt", "dog||Hund\ndog||Köter\ndog||Hund\n"), pair_separator="||")
    assert (len(table.pairs), table.duplicate) == (2, 1)


def test_clean_composes_and_joins() -> None:
    assert clean(unicodedata.normalize("NFD", "  Füße\u00a0\u2003über\t\n alles ")) == "Füße über alles"


def test_duplicates_are_counted_after_cleaning(write: Write) -> None:
    file = write("a.txt", "caf\u00e9 noir\ncafe\u0301  noir\n\ntea\ncaf\u00e9 noir\n   \n")
    table = read(file)
    assert texts(table) == ["café noir", "tea"]
    assert table.counts() == {"available": 6, "read": 6, "empty": 2, "duplicate": 2, "kept": 2}
    kept = read(file, deduplicate=False)
    assert texts(kept) == ["café noir", "café noir", "tea", "café noir"]
    assert kept.counts() == {"available": 6, "read": 6, "empty": 2, "duplicate": 0, "kept": 4}


LINES = [f"line {i % 2500}" if i % 7 else "" for i in range(3000)]


def sample(seed: int, **settings: Any) -> TextTable:
    return choose(in_memory(LINES), DataConfig(**settings), seed, "lines")


def test_sample_follows_the_seed() -> None:
    assert sample(1, size=100).pairs == sample(1, size=100).pairs
    assert set(sample(1, size=100).pairs) != set(sample(2, size=100).pairs)
    assert len(set(sample(1, size=100).pairs)) == 100


def test_sample_comes_from_everywhere() -> None:
    numbers = [int(left.split()[1]) for left, _ in sample(1, size=1000).pairs]
    assert min(numbers) < 100
    assert max(numbers) > 2400
    assert numbers != sorted(numbers)


def test_first_texts_in_their_order() -> None:
    for seed in (1, 2):
        table = sample(seed, size=3, sample=Sample.first)
        assert texts(table) == ["line 1", "line 2", "line 3"]
        assert (table.available, table.read) == (3000, 4)  # no further than needed


def test_no_size_takes_all_in_their_order() -> None:
    table = sample(1, size=None)
    assert texts(table) == list(dict.fromkeys(line for line in LINES if line))


@pytest.mark.parametrize("size", [2, 1024, 2000, 50_000, None])
def test_counts_add_up(size: int | None) -> None:
    table = sample(3, size=size)
    counts = table.counts()
    assert counts["read"] == counts["empty"] + counts["duplicate"] + counts["kept"]
    assert counts["read"] <= counts["available"] == len(LINES)
    assert counts["kept"] == len(table.pairs) == min(size or 10**6, len({line for line in LINES if line}))
    assert all(f"{count:,}" in str(table) for count in counts.values())


def test_frequent_words() -> None:
    table = read_texts(DataConfig(source=WORDS, language="de", size=500, sample=Sample.first), 0)
    assert len(table.pairs) == 500
    assert {"der", "die", "und"} <= set(texts(table)[:10])
    english = read_texts(DataConfig(source=WORDS, size=10, sample=Sample.first), 0)
    assert texts(english)[0] == "the"


@pytest.mark.parametrize("language", ["et", "cy", "xx"])
def test_language_without_a_word_list_is_refused(language: str) -> None:
    """Welsh included, for which wordfreq itself silently answers in English."""
    with pytest.raises(MirrorError, match=rf"data\.language={language}.* en "):
        read_texts(DataConfig(source=WORDS, language=language), 0)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.txt", b"", "is empty"),
        ("empty.txt.gz", b"", "is empty"),
        ("empty.txt.zst", b"", "is empty"),
        ("blank.txt", b"\n \n\t\n", "0 kept"),
        ("binary.txt", bytes(range(256)), "not a text file|not UTF-8"),
        ("zeros.txt", b"one\ntwo\0\n", "zero byte"),
        ("latin.txt", "one\nétude\n".encode("latin-1"), "UTF-8 in line 2"),
        ("latin.csv", "text\nétude\nb\n".encode("latin-1"), "UTF-8 in line 2"),
        ("same.txt", b"one\none\n one \n", "2 duplicate, 1 kept"),
        ("single.txt", b"one\n", "1 kept"),
        ("header.csv", b"text,n\n", "header.csv"),
        ("broken.jsonl", b'{"text": "one"\n{"te', "broken.jsonl"),
        ("broken.csv", b"text,n\none,1\ntwo,2,3,4\n", "broken.csv"),
        ("broken.parquet", b"PAR", "broken.parquet"),
    ],
)
def test_unusable_file_is_refused_with_the_reason(name: str, content: bytes, reason: str, write: Write) -> None:
    with pytest.raises(MirrorError, match=reason) as refusal:
        read(write(name, content))
    assert "data.path=" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_file_that_is_compressed_by_name_only_is_refused(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a.txt.{suffix}").write_bytes(b"one\ntwo\n")
    with pytest.raises(MirrorError, match=rf"data\.path=.*{suffix}"):
        read(tmp_path / f"a.txt.{suffix}")


def test_zst_without_its_package(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.txt.zst", "one\ntwo\n")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MirrorError, match=r"pip install 'mirror-encoders\[zstd\]'"):
        read(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"nowhere\.txt does not exist"):
        read(tmp_path / "nowhere.txt")
    with pytest.raises(MirrorError, match=r"nowhere\.csv does not exist"):
        read("nowhere.csv")
    with pytest.raises(MirrorError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("setting", ["column", "pair_column"])
def test_wrong_column_is_refused_with_the_choice(setting: str, write: Write) -> None:
    settings: dict[str, Any] = {setting: "txet"}
    with pytest.raises(MirrorError, match=rf"data\.{setting}=txet.*text, number, remark"):
        read(write("a.csv", CSV), **settings)


def test_column_of_numbers_is_refused(write: Write) -> None:
    with pytest.raises(MirrorError, match=r"column number .*holds int"):
        read(write("a.jsonl", '{"text": "a", "number": 1}\n{"text": "b", "number": 2}\n'), column="number")


def test_missing_cells_are_empty_texts(write: Write) -> None:
    table = read(write("a.jsonl", '{"text": "one"}\n{"text": null}\n{"text": "two"}\n'))
    assert texts(table) == ["one", "two"]
    assert table.empty == 1


def test_line_without_the_separator_is_refused(write: Write) -> None:
    with pytest.raises(MirrorError, match=r"data\.pair_separator.*'cat'"):
        read(write("a.txt", "Hund||dog\ncat\n"), pair_separator="||")


@pytest.mark.parametrize("item", [3, ("a", "b", "c"), ("a", 3), None])
def test_items_that_are_no_texts_are_refused(item: Any) -> None:
    with pytest.raises(MirrorError, match=r"texts\[1\]"):
        in_memory(["fine", item])


def test_unreachable_hub_is_said_at_once() -> None:
    """In a process of its own, as the hub's client reads its environment when it is imported."""
    program = (
        "import datasets, time; from mirror.config import DataConfig; from mirror.data.texts import read_texts\n"
        "start = time.monotonic()\n"
        "try: read_texts(DataConfig(path='someorg/somename'), 0)\n"
        "except Exception as error: print(type(error).__name__, error, round(time.monotonic() - start), sep='|')\n"
    )
    unset = ("HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    kind, message, seconds = done.stdout.strip().split("|")
    assert kind == "UnavailableError"
    assert "data.path=someorg/somename" in message
    assert "local file" in message
    assert int(seconds) < 10  # the hub's client alone retries for half a minute


def test_hub_that_does_not_answer_counts_as_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall or a captive network may accept the connection and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub_constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(MirrorError, match="the hub cannot be reached: give a local file"):
            read_texts(DataConfig(path="someorg/somename"), 0)


def test_authors_sentences(data_dir: Path) -> None:
    file = data_dir / "corpora" / "stsbenchmark_train_10k_sents_random_sampled.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) - len(set(lines)) == 719
    table = read(file)  # cleaning finds 28 more, which differ in white space alone
    assert table.counts() == {"available": 10_000, "read": 10_000, "empty": 0, "duplicate": 747, "kept": 9_253}
    assert "A man is playing a guitar." in texts(table)
    whole = read(file, deduplicate=False)
    assert texts(whole).count("A man is playing a guitar.") == 34
    assert len(whole.pairs) == 10_000


@pytest.mark.parametrize("language", ["en", "fr"])
def test_authors_words(language: str, data_dir: Path) -> None:
    file = data_dir / "corpora" / f"{language}_words_top_10k.txt"
    lines = file.read_text(encoding="utf-8").split("\n")
    table = read(file)
    assert set(texts(table)) == {clean(line) for line in lines} - {""}
    assert table.read == table.available == len(lines) - (lines[-1] == "")
    assert len(table.pairs) > 9_900


@pytest.mark.parametrize("size", [None, 150])
@pytest.mark.parametrize("deduplicate", [True, False])
def test_long_sources_stay_where_they_are(
    size: int | None, deduplicate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same texts in the same order, read from the file when they are asked for."""
    path = tmp_path / "texts.csv"
    lines = [f"  text {i % 180},positive {i % 180}" if i % 7 else "," for i in range(300)]
    path.write_text("text,positive\n" + "\n".join(lines) + "\n", encoding="utf-8")
    config = DataConfig(path=str(path), column="text", pair_column="positive", size=size, deduplicate=deduplicate)
    short = read_texts(config, 3)
    monkeypatch.setattr("mirror.data.texts.MAX_IN_MEMORY", 100)
    long = read_texts(config, 3)
    assert isinstance(short.pairs, list)
    assert isinstance(long.pairs, LongPairs)
    assert list(long.pairs) == long.pairs[:] == short.pairs
    assert long.pairs[7] == short.pairs[7]
    assert long.pairs.take([9, 3, 3]) == [short.pairs[i] for i in (9, 3, 3)]
    assert (long.counts(), long.fingerprint) == (short.counts(), short.fingerprint)


def test_fingerprint_tells_texts_and_their_order() -> None:
    texts = ["one", "two", "three"]
    config = DataConfig(size=None, sample=Sample.first)

    def fingerprint(texts: list[str]) -> int:
        return choose(in_memory(texts), config, 0, "test").fingerprint

    assert fingerprint(texts) == fingerprint([" one", "two ", "", "three"])
    assert len({fingerprint(texts), fingerprint(texts[::-1]), fingerprint(["one", "two"])}) == 3


def test_words_of_two_languages_turn_by_turn() -> None:
    """A sample of the first ones has as many of each."""
    import wordfreq

    table = read_texts(DataConfig(source=WORDS, language="en+de", size=40, sample=Sample.first), 0)
    words = {word for word, _ in table.pairs}
    english, german = ({*wordfreq.top_n_list(language, 40)} for language in ("en", "de"))
    assert len(words) == 40
    assert min(len(words & english), len(words & german)) >= 18
    with pytest.raises(MirrorError, match=r"data\.language=en\+et has no word list"):
        read_texts(DataConfig(source=WORDS, language="en+et", size=40), 0)
