#!/usr/bin/env python3
"""picture.py REPORT: what `pgwake bench latency --json REPORT` measured, as a plot: an SVG for light and dark pages."""

import json
import math
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 980, 370
LEFT, RIGHT, TOP, BOTTOM = 74, 944, 72, 316

# The colours and dashes of the pages of `pgwake bench --html`.
STYLE = """
:root { --card: #fff; --text: #1b1f27; --quiet: #5b6472; --grid: #e3e6eb; --c0: #6b7482; --c1: #1f6feb; --c2: #c2540a; }
@media (prefers-color-scheme: dark) {
  :root { --card: #181c23; --text: #e6e9ee; --quiet: #9aa4b2; --grid: #2a303a; --c0: #9aa4b2; --c1: #6aa9ff; --c2: #f0954f; }
}
text { fill: var(--quiet); font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.title { fill: var(--text); font-size: 17px; font-weight: 600; } .name { fill: var(--text); font-size: 15px; }
.card { fill: var(--card); stroke: var(--grid); } .grid { stroke: var(--grid); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.s0 { stroke: var(--c0); stroke-dasharray: 6 4; } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); stroke-dasharray: 1 4; }
"""


def across(percentile):
    """90, 99 and 99.9 % are equally far apart, up to 99.99 %."""
    return LEFT + (RIGHT - LEFT) * -math.log10(1 - percentile / 100) / 4


def text(x, y, words, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'


def main(path):
    with open(path, encoding="utf-8") as file:
        measured = json.load(file)["measurements"]
    lines = [(m["contender"], [p for p in m["distribution"] if p[0] <= 99.99]) for m in measured[:3]]
    values = [us for _, points in lines for _, us in points]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05

    def down(us):
        return BOTTOM - (BOTTOM - TOP) * (math.log10(us) - low) / (high - low)

    what = "How long notifications took, from when they were due until the program had them"
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    print(f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{what}">')
    print(f"<style>{STYLE}</style>")
    print(f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>')
    print(text(LEFT, 28, what, ' class="title"'))
    for power in range(0, 8):
        for us in (10**power, 3 * 10**power):
            if low <= math.log10(us) <= high:
                label = f"{us} µs" if us < 1000 else f"{us // 1000} ms" if us < 1000000 else f"{us // 1000000} s"
                print(f'<path class="grid" d="M{LEFT} {down(us):.1f}H{RIGHT}"/>')
                print(text(LEFT - 8, down(us) + 4, label, ' text-anchor="end"'))
    for percentile in (0, 50, 90, 99, 99.9, 99.99):
        x = across(percentile)
        print(f'<path class="grid" d="M{x:.1f} {TOP}V{BOTTOM}"/>')
        print(text(x, BOTTOM + 18, f"{percentile} %", ' text-anchor="middle"'))
    share = "share of notifications that were as fast or faster"
    print(text((LEFT + RIGHT) / 2, HEIGHT - 14, share, ' text-anchor="middle"'))
    for i, (name, points) in enumerate(lines):
        x = LEFT + 220 * i
        print(f'<path class="line s{i}" d="M{x} 50H{x + 42}"/>' + text(x + 50, 55, name, ' class="name"'))
        path = "L".join(f"{across(percentile):.1f} {down(us):.1f}" for percentile, us in points)
        print(f'<path class="line s{i}" d="M{path}"/>')
    print("</svg>")


main(sys.argv[1])
