"""Whether each translated page is of the English page as it is now.

    python docs/theme/translated.py             # what is behind, with exit code 1
    python docs/theme/translated.py --update    # once the changes are translated: the new hashes

A translated page begins with `<!-- of PAGE HASH -->`: the English page, below the repository, and
the beginning of its SHA-256 as it was when the page was last made to say the same.
"""

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAD = re.compile(r"<!-- of (\S+) (\w+) -->\n")


def translations():
    """Every translated page, below the repository."""
    found = [ROOT / "README.ko.md", *sorted((ROOT / "docs" / "ko").glob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def state(page):
    """The English page of a translated one, the hash in its head, and that of the page now."""
    head = HEAD.match((ROOT / page).read_text("utf-8"))
    if head is None:
        raise SystemExit(f"{page} does not begin with <!-- of PAGE HASH -->")
    english = (ROOT / head[1]).read_bytes()
    return head[1], head[2], hashlib.sha256(english).hexdigest()[:16]


def main(arguments):
    """Tell, or update; the exit code."""
    behind = 0
    for page in translations():
        english, known, now = state(page)
        if known == now:
            continue
        if "--update" in arguments:
            path = ROOT / page
            text = HEAD.sub(f"<!-- of {english} {now} -->\n", path.read_text("utf-8"), count=1)
            path.write_text(text, "utf-8")
            print(f"{page} is of {english} {now} now")
        else:
            behind += 1
            print(f"{page} is behind: {english} was {known} and is {now}")
    return min(behind, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
