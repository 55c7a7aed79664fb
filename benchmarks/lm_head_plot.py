"""Memory against the number of tokens, from the committed result of `lm_head.py --case sweep`, as one SVG.

    python benchmarks/lm_head_plot.py benchmarks/results/lm_head_sweep.json docs/images/lm_head_memory.svg

Needs matplotlib (the `plots` extra). The numbers drawn are in the file's description, so that a test can compare them.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

COLOURS = ("#0b7285", "#e8590c", "#868e96")


def drawn_numbers(result: Any) -> str:
    """What the plot shows, as one line: MiB by variant and number of tokens."""
    return json.dumps({"both gradients and the values": result["output_mib"], **result["peak_mib"]})


def memory_plot(result: Any) -> str:
    """The SVG, without a date: the same result gives the same text under the same matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    case = result["case"]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "covent", "font.family": "sans-serif"}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for colour, (name, peaks) in zip(COLOURS, result["peak_mib"].items(), strict=True):
            axes.plot([int(size) for size in peaks], list(peaks.values()), "o-", color=colour, label=name)
        sizes = [int(size) for size in result["output_mib"]]
        outputs = list(result["output_mib"].values())
        axes.plot(sizes, outputs, "--", color="black", linewidth=1, label="of it: both gradients and the values")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{size // 1024}k" for size in sizes])
        axes.minorticks_off()
        axes.set(xlabel="tokens", ylabel="MiB that a call adds", ylim=(20, 20_000))
        axes.set_title(f"{case['dtype']}, width {case['width']}, vocabulary {case['vocabulary']:,}", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False, loc="upper right")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Description": drawn_numbers(result)})
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("svg", type=Path)
    arguments = parser.parse_args()
    arguments.svg.write_text(memory_plot(json.loads(arguments.result.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
