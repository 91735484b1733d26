"""Where texts come from if no file is named. A source is chosen by ``data=``.

It is a function that returns ``Rows``, or any iterable of texts or of pairs of texts. It may ask for ``language``,
``size`` and ``path``, the settings of ``data``, by these names. One of a user's own: ``source: {_target_:
my_package.my_texts}`` in a file of the group ``data``.
"""
