"""Bars as SVG, without a plotting library."""

from collections.abc import Mapping
from html import escape

_WIDTH, _LABEL, _BAR, _GAP = 860, 230, 18, 6
_OURS, _OTHERS = "#2a6fbb", "#9aa5b1"


def bars(groups: Mapping[str, Mapping[str, float]], unit: str = "s") -> str:
    """One bar for each value, grouped; ours are blue. Shorter is better."""
    parts: list[str] = []
    y = 10
    for title, values in groups.items():
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{escape(title)}</text>')
        y += 26
        longest = max(values.values(), default=1.0)
        for name, value in values.items():
            length = (_WIDTH - _LABEL - 80) * value / longest
            colour = _OURS if name.startswith("slipway") else _OTHERS
            parts.append(f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>')
            parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 13}">{value:.2f} {unit}</text>')
            y += _BAR + _GAP
        y += 14
    size = f'width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])
