r"""Final answers in the writings that models use: what is read, and which numbers are the same."""

import pytest

from unlearn_lightning.inference.answers import final_answer, last_number, same_number, to_number

# What follows `####`, and the number that it is.
WRITINGS = {
    "−5": "-5", "–5": "-5", "—5": "-5", "‐5": "-5", "‒5": "-5", "﹣5": "-5", "－5": "-5", "- 5": "-5", "− 5": "-5", "+5": "5", "-½": "-0.5",
    "$5": "5", "€15": "15", "£ 15": "15", "15€": "15", "₹1,00,000": "100000", "US$5": "5", "-$5": "-5", "$-5": "-5", "−$1,000": "-1000",
    r"\$42": "42", "$42$": "42", r"\(42\)": "42", r"\[42\]": "42",
    "**42**": "42", "*42*": "42", "__42__": "42", "`42`": "42", "**$42**": "42", "**−42**": "-42",
    r"\boxed{42}": "42", r"$\boxed{42}$": "42", r"\boxed{\$42}": "42", r"\boxed{\text{42 apples}}": "42", r"\text{42}": "42",
    r"\boxed{-5}": "-5",
    "1 000": "1000", "1\u00a0000": "1000", "1\u2009000": "1000", "1\u202f000": "1000", "1\u2007000": "1000", "12 345 678": "12345678",
    "1'000": "1000", "1,000": "1000", "1{,}000": "1000", r"1\,000": "1000", "1.000.000": "1000000", "1.000,50": "1000.5",
    "1 000,50": "1000.5", "1 000.50": "1000.5", "3 apples and 100 pears": "3",
    "3/4": "0.75", "3 / 4": "0.75", "3⁄4": "0.75", "¾": "0.75", "1½": "1.5", "1 1/2": "1.5", r"\frac{3}{4}": "0.75", "-3/4": "-0.75",
    r"1\frac{1}{2}": "1.5", r"\boxed{\dfrac{3}{4}}": "0.75", "12/3": "4",
    "50%": "50", r"50\%": "50", "50 %": "50", "12.": "12", "12..": "12", "12...": "12", "12!": "12", "12,": "12", "12;": "12", "12)": "12",
    "12 apples": "12", "12kg": "12", "12-year-old": "12", "5/hour": "5", "5th": "5", "1e3": "1000", "1.5E2": "150", ".5": "0.5",
    "0.50": "0.5", "007": "7", "４２": "42", "9" * 5000: "9" * 5000,
}  # fmt: skip
# What follows `####` where the first number is only a part of what is meant, or nothing is.
NO_NUMBERS = ["", "none", "x", "10 - 4 = 6", "10 − 4", "2:30", "10^3", "10²", "6*7", "6 × 7", "3/4/2024", "3/0", "1.2.3", "--5"]


@pytest.mark.parametrize(("written", "number"), WRITINGS.items(), ids=[repr(written[:12]) for written in WRITINGS])
def test_a_number_is_read_however_it_is_written(written, number):
    assert same_number(final_answer(f"The sum is 99.\n#### {written}"), number)


@pytest.mark.parametrize("written", NO_NUMBERS)
def test_a_part_is_not_taken_for_the_number(written):
    assert to_number(final_answer(f"The sum is 99.\n#### {written}") or "") is None


@pytest.mark.parametrize(
    ("written", "wrong"),
    [("−5", "5"), ("–5", "5"), ("- 5", "5"), ("3/4", "3"), ("3/4", "4"), ("1½", "1"), ("1 000", "1"), ("1 000", "0"), ("1.000.000", "1")],
)
def test_nothing_else_is_right(written, wrong):
    for read in (final_answer, last_number):
        assert not same_number(read(f"#### {written}"), wrong)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("6 + 6 = 12.\n#### 12", "12", "12"),
        # The first counts, as in GSM8K's own code.
        ("#### 3\nno, wait\n#### $1,234.50", "3", "$1,234.50"),
        ("#### 42\n\nQuestion: what is 6 + 1?\n#### 7", "42", "7"),
        ("#### so\n#### 7", "7", "7"),
        ("**#### 42**", "42", "42"),
        ("####12 and 5 more", "12", "5"),
        ("so it is 7 apples", None, "7"),
        (r"so it is \boxed{42}.", None, "42"),
        ("**42**", None, "42"),
        ("it fell to -4", None, "-4"),
        ("it is −5.", None, "−5"),
        ("it is - 5", None, "- 5"),
        ("x = –5", None, "-5"),
        ("- 5", None, "- 5"),
        ("(−5)", None, "−5"),
        ("**-5**", None, "-5"),
        # A dash between two things is no sign of the second.
        ("10-4", None, "4"),
        ("10 − 4", None, "4"),
        ("3–5 people", None, "5"),
        ("COVID-19", None, "19"),
        ("In total — 5 apples", None, "5"),
        ("- 3 pears\n- 5 apples", None, "5"),
        ("it costs 1 000.", None, "1 000"),
        ("so 3/4 of it", None, "3/4"),
        ("12/3 = 4", None, "4"),
        ("6*7 = 42", None, "42"),
        ("nothing", None, None),
        ("####", None, None),
    ],
)
def test_strict_and_flexible(text, strict, flexible):
    assert final_answer(text) == strict
    assert last_number(text) == flexible


@pytest.mark.parametrize(
    "written", ["1000", "1,000", "1000.0", "$1,000", "1,000.", " 1000 ", "+1000", "2000/2", "1 000", "1000%", "**1000**"]
)
def test_the_same_number_in_many_writings(written):
    assert same_number(written, "1000")


@pytest.mark.parametrize(("one", "other"), [("1000", "100"), ("12", None), (None, None), ("x", "x"), ("-3", "3"), ("3/0", "3/0")])
def test_different_or_no_numbers(one, other):
    assert not same_number(one, other)
