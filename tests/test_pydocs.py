from mirror import pydocs
from mirror.config import Builtin, DataConfig
from mirror.pydocs import Function, functions, held_out, sentences, split_sentences
from mirror.texts import read_texts

DOCSTRING = """
    join(separator, *parts) -> str

    Join the parts with a separator, as `str.join` does.  An empty
    part is :func:`skipped <mirror.skip>`.

    A second paragraph says **more** of it.

        >>> join("-", "a", "b")
        'a-b'

    Parameters
    ----------
    separator : str
        What stands between two parts.
    """


def test_a_docstring_becomes_summary_and_description() -> None:
    import inspect

    parsed = pydocs._parse("os.join", inspect.cleandoc(DOCSTRING))
    assert parsed == Function(
        "os.join",
        "Join the parts with a separator, as str.join does.",
        "An empty part is skipped. A second paragraph says more of it.",
    )


def test_there_are_ten_thousand_sentences() -> None:
    assert len(sentences()) >= 10_000
    assert len(set(sentences())) == len(sentences())
    assert all(sentence[0].isupper() and sentence[-1] in ".!?" for sentence in sentences())


def test_code_is_no_sentence() -> None:
    assert not [sentence for sentence in sentences() if ">>>" in sentence or "`" in sentence or "==" in sentence]


def test_functions_are_the_installed_ones() -> None:
    known = {function.name: function for function in functions()}
    assert known["sorted"].summary.startswith("Return a new list containing all items from the iterable")
    assert {"dict.get", "collections.Counter.most_common", "numpy.argsort", "torch.stack"} <= known.keys()
    assert len(known) == len(functions())


def test_order_is_always_the_same() -> None:
    first = (functions(), held_out(), sentences())
    for cached in (functions, held_out, sentences, pydocs._docstrings):
        cached.cache_clear()
    assert (functions(), held_out(), sentences()) == first


def test_training_never_sees_what_retrieval_is_measured_on() -> None:
    measured = {
        part
        for function in held_out()
        for text in (function.summary, function.description)
        for part in (text, *split_sentences(text))
    }
    table = read_texts(DataConfig(builtin=Builtin.pydocs, size=None), seed=0)
    assert len(measured) > 2000
    assert not measured & {text for text, _ in table.pairs}
    assert "documentation" in table.source


def test_held_out_functions_are_distinct() -> None:
    chosen = held_out()
    assert len(chosen) == pydocs.HELD_OUT
    assert len({function.summary for function in chosen}) == len({f.description for f in chosen}) == len(chosen)
    assert not [function for function in chosen if function.summary in function.description]
