"""Strings of unknown origin are shown on one line, harmless and short."""

import pytest

from npmobilenet.text import listed, printable, quote


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tench, Tinca tinca", "tench, Tinca tinca"),
        ("猫 café ½", "猫 café ½"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("\x9b2J\x7f\0", r"\x9b2J\x7f\x00"),
        ("exe\u202egnp.\u2066\u200b", r"exe\u202egnp.\u2066\u200b"),
        ("two\u2028lines\x85", r"two\u2028lines\x85"),
        ("caf\udce9", r"caf\udce9"),
        ("a\u00a0b\u3000c", "a b c"),
        ("", ""),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert shown.isprintable() and shown.encode().decode() == shown


@pytest.mark.parametrize("character", ["x", "\x1b", "\U000e0001"])
@pytest.mark.parametrize("limit", [1, 2, 20])
def test_length_is_limited_after_escaping(character, limit):
    text = printable(character * 10**6, limit)
    assert len(text) <= limit and text.endswith("…")
    assert len(printable("x" * limit, limit)) == limit and "…" not in printable("x" * limit, limit)


def test_quote():
    assert quote("plain") == "'plain'"
    assert quote("it's\n") == '"it\'s\\n"'
    assert quote("""'both" """) == '''"'both\\" "'''
    assert quote(7) == "a int"
    assert quote("x" * 100, 10) == "'xxxxxxxxx…'"


def test_listed():
    assert listed(["a", "b\x1b"]) == ["a", r"b\x1b"]
    assert listed(list("abcde"), 2) == ["a", "b", "... and 3 more"]
