"""300 final answers made to hang, swell or confuse a verifier of mathematics. Written down by rule, none left out.

None of them is the number 42, which every test takes as the right answer.
"""

from __future__ import annotations

TRUTH = "42"
RIGHT = r"\boxed{\frac{126}{3}+0}"
"""Right, and only for a verifier that can calculate."""


def hostile_answers() -> list[str]:
    """The content of the final `\\boxed{}` of each, by family."""
    found = [*towers(), *factorials(), *nesting(), *large(), *digits(), *unicode_text(), *analysis()]
    assert len(found) == len(set(found)) == 300
    return found


def towers() -> list[str]:
    """60 powers of powers."""
    plain = [
        "^{".join([str(base)] * height) + "}" * (height - 1) for base in range(2, 10) for height in (4, 5, 6, 9, 30)
    ]
    signed = [f"{base}^{{-{base}^{{{base}^{{{base + 7}}}}}}}" for base in range(2, 12)]
    roots = [f"\\sqrt[{n}]{{{n}^{{{n}^{{{n}^{{{n}}}}}}}}}" for n in range(3, 13)]
    return plain + signed + roots


def factorials() -> list[str]:
    """40 factorials and binomials."""
    single = [f"(10^{{{n}}})!" for n in range(6, 16)]
    repeated = [str(n) + "!" * count for n in (9, 12, 20) for count in (3, 4, 5, 9)] + [
        "(((100!)!)!)!",
        "((3!)!)!!!!!!",
    ]
    binomials = [f"\\binom{{10^{{{n}}}}}{{10^{{{n - 1}}}}}" for n in range(5, 13)]
    powers = [f"({n}!)^{{({n}!)^{{{n}!}}}}" for n in range(9, 17)]
    return single + repeated + binomials + powers


def nesting() -> list[str]:
    """50 deeply nested expressions."""
    depths = (50, 200, 1_000, 3_000, 5_000)
    return [
        opening * depth + "1" + closing * depth
        for depth in depths
        for opening, closing in (
            ("(", ")"),
            ("{", "}"),
            ("[", "]"),
            ("\\left(", "\\right)"),
            ("\\frac{1}{1+", "}"),
            ("\\sqrt{1+", "}"),
            ("\\sin(", ")"),
            ("-", ""),
            ("2^{", "}"),
            ("\\log{(", ")}"),
        )
    ]


def large() -> list[str]:
    """20 answers around a megabyte."""
    size = 1 << 20
    units = [
        "1",
        "9",
        "x",
        "x+",
        "(",
        "{",
        "\\frac",
        "\\sqrt",
        "1,",
        "\\{",
        "$",
        "\\\\",
        "7 ",
        "-",
        "^",
        "_",
        "é",
        "\U0001f600",
    ]
    repeated = [unit * (size // len(unit)) for unit in units]
    return [*repeated, "1" + "0" * size + "!", "0." + "3" * size]


def digits() -> list[str]:
    """50 numbers of many digits, and operations on them."""
    lengths = (500, 900, 4_000, 5_000, 15_000)
    return [
        text
        for n in lengths
        for text in (
            "7" * n,
            "0." + "7" * n,
            f"1e{'9' * (n // 100)}",
            f"\\frac{{{'7' * n}}}{{{'3' * n}}}",
            f"{'9' * n} \\cdot {'8' * n}",
            f"{'9' * n}^{{{'8' * 3}}}",
            f"{'9' * n} \\mod {'7' * n}",
            f"\\sqrt{{{'9' * n}}}",
            f"10^{{{'9' * (n // 100 + 2)}}} - 1",
            f"{'9' * n}%",
        )
    ]


def unicode_text() -> list[str]:
    """40 answers with characters that look like others, or like nothing."""
    zero_width, right_to_left, combining = "\u200b", "\u202e", "\u0301"
    scripts = ["４２０", "٤٢٠", "४२०", "Ⅻ", "²⁴", "½", "①", "〇", "∞", "−−−42", "𝟜𝟚𝟘", "߃"]
    marks = [
        f"4{mark}2{mark}0"
        for mark in (zero_width, right_to_left, combining, "\u2060", "\ufeff", "\u00ad", "\x00", "\x1b[2J")
    ]
    long = [
        mark * 10_000
        for mark in (zero_width, right_to_left, combining, "\ufffd", "\U0001d7d8", "÷", "√", "∑", "π", "!")
    ]
    mixed = [
        "\u221a" * 500 + "2",
        "x" + combining * 5_000,
        "\U0010ffff",
        "\ud7ff",
        "＼boxed{42}1",
        "4\n2\n0",
        "4\t20",
        "4 2 0 \r",
    ]
    return scripts + marks + long + mixed + ["\\text{" + "\u0416" * 3_000 + "}", "\\unicode{x42}"]


def analysis() -> list[str]:
    """40 sums, limits, integrals, sets and equations that take for ever."""
    sums = [f"\\sum_{{k=1}}^{{10^{{{n}}}}} \\frac{{1}}{{k^k+{n}}}" for n in range(5, 13)]
    products = [f"\\prod_{{k=1}}^{{10^{{{n}}}}} (k+{n})" for n in range(5, 13)]
    integrals = [f"\\int_0^{{{n}}} x^{{x^{{x^{{{n}}}}}}} e^{{\\sin(x^{{{n}}})}} dx" for n in range(2, 8)]
    limits = [f"\\lim_{{x \\to \\infty}} (1+\\frac{{{n}}}{{x}})^{{x^{{{n}}}!}}" for n in range(2, 8)]
    powers = [f"(x+y+z+w)^{{{n}}} - (w+z+y+x)^{{{n}}}" for n in (50, 300, 3_000, 30_000)]
    sets = ["\\{" + ",".join(f"x_{{{i}}}^{{{n}}}" for i in range(n)) + "\\}" for n in (50, 500, 2_000)]
    equations = [f"x^{{{n}}} + y^{{{n}}} = z^{{{n}}}, x = {n}" for n in (5, 99, 9_999)]
    matrices = [
        "\\begin{pmatrix}"
        + "\\\\".join("&".join(f"{i}^{{{j}}}" for j in range(n)) for i in range(n))
        + "\\end{pmatrix}^{-99}"
        for n in (9, 40)
    ]
    return sums + products + integrals + limits + powers + sets + equations + matrices
