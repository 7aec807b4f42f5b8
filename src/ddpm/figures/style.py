"""The colours of curves, which people who confuse red and green can tell apart too (Okabe & Ito
2008), and letters that can be read when a page shows the picture smaller.
"""

from __future__ import annotations

import matplotlib
from cycler import cycler

CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")

STYLE = {
    "axes.prop_cycle": cycler(color=CURVES),
    "font.size": 11,
    "lines.linewidth": 1.8,
}

# A decorator of what draws with matplotlib; other programs' settings stay as they are.
styled = matplotlib.rc_context(STYLE)
