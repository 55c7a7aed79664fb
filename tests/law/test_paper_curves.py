"""The paper's digitised curves: least squares gives the drawn lines, as it should if they are least-squares lines.

Data: figure e2a of the paper's repository (arXiv 2505.22617), read off the picture; see the head of the file.
"""

import pytest

from benchmarks.law_worlds import DRAWN_LINES, digitised
from covent.law import fit, fit_line
from tests.support.tolerances import PAPER_LINES


@pytest.mark.parametrize("model", DRAWN_LINES)
def test_least_squares_gives_the_drawn_lines(model: str) -> None:
    entropy, accuracy = digitised()[model]
    law = fit(entropy, accuracy, unit="percent")
    assert (law.a, law.b) == pytest.approx(DRAWN_LINES[model], rel=PAPER_LINES)
    assert law.identified
    line = fit_line(entropy, accuracy, unit="percent")
    assert -line.slope != pytest.approx(DRAWN_LINES[model][0], rel=PAPER_LINES)
