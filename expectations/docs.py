"""Great Expectations' pages without the internet, and an index of our own.

Its pages load scripts and styles of six other companies' servers, and its index is drawn by them. Nothing of a
payments company should run code from elsewhere: those references are removed, a small style takes their place, and
the index is written from the report.
"""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path

_EXTERNAL = re.compile(
    r'<script[^>]*\ssrc="https?://[^>]*>\s*</script>|<link[^>]*\shref="https?://[^>]*>|<footer>.*?</footer>'
    r'|<img[^>]*\ssrc="https?://[^>]*>|<script[^>]*>.*?</script>|<button[^>]*>.*?</button>',
    re.DOTALL,
)
_CONTROLS = re.compile(r'<div class="btn-group btn-group-toggle".*?</div>|<input[^>]*>', re.DOTALL)

_STYLE = """<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border: 1px solid #8886; padding: .3rem .5rem; text-align: left; vertical-align: top; }
a { color: LinkText; }
.navbar, .navbar *, footer { height: auto !important; }
.fa-check-circle::before { content: "✓ holds"; color: #1a7f37; font-style: normal; }
.fa-times::before { content: "✗ broken"; color: #cf222e; font-style: normal; font-weight: 600; }
.fa-exclamation-triangle::before { content: "! could not be evaluated"; color: #cf222e; font-style: normal; }
@media (prefers-color-scheme: dark) {
  .fa-check-circle::before { color: #3fb950; }
  .fa-times::before, .fa-exclamation-triangle::before { color: #ff7b72; }
}
</style>"""


def make_self_contained(folder: Path, *, title: str, failed: dict[str, int]) -> None:
    """Rewrite the pages below `folder` so that they load nothing from elsewhere.

    Args:
        folder: data docs as Great Expectations built them.
        title: heading of the index.
        failed: suite → how many of its expectations do not hold.
    """
    shutil.rmtree(folder / "static", ignore_errors=True)  # fonts and pictures that nothing refers to any more
    for path in folder.rglob("*.html"):
        page = _CONTROLS.sub("", _EXTERNAL.sub("", path.read_text(encoding="utf-8")))
        path.write_text(page.replace("</head>", f"{_STYLE}</head>"), encoding="utf-8")
    (folder / "index.html").write_text(_index(folder, title, failed), encoding="utf-8")


def _index(folder: Path, title: str, failed: dict[str, int]) -> str:
    pages = {
        path.parents[2].relative_to(folder / "validations"): path for path in folder.glob("validations/*/*/*/*/*.html")
    }
    rows = []
    for suite, broken in sorted(failed.items(), key=lambda item: (-item[1], item[0])):
        page = pages.get(Path(*suite.split(".")))
        link = f'<a href="{page.relative_to(folder).as_posix()}">{escape(suite)}</a>' if page else escape(suite)
        outcome = f'<i class="fa-times"></i> ({broken})' if broken else '<i class="fa-check-circle"></i>'
        rows.append(f"<tr><td>{link}</td><td>{outcome}</td></tr>")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>{_STYLE}</head>\n'
        f'<body><p><a href="../../index.html">Back to the warehouse</a></p><h1>{escape(title)}</h1>\n'
        "<table><thead><tr><th>Table</th><th>Expectations</th></tr></thead><tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></body></html>\n"
    )
