"""The site of the documents: Sphinx with MyST and Furo. `make docs` builds it; docs/index.md has the structure."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Solar Wind"
author = "the authors of Solar Wind"
version = release = version_of("solarwind")
language = "en"
smartquotes = False  # what is quoted is often code

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_llms_txt", "pages", "reference"]
exclude_patterns = ["site", "benchmarks"]
root_doc = "index"
show_warning_types = True
suppress_warnings = ["toc.not_included"]  # `pages` says it with what to do

myst_heading_anchors = 6
myst_enable_extensions = ["colon_fence"]

python_maximum_signature_line_length = 88
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"Solar Wind {release}"
html_favicon = html_logo = "../../src/solarwind/console/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sphinx = False
html_show_copyright = False
html_show_sourcelink = False
html_sourcelink_suffix = ""  # llms.txt names the Markdown of each page
html_last_updated_fmt = None
html_theme_options = {"navigation_with_keys": True, "footer_icons": []}
pygments_style = "github-light-high-contrast"
pygments_dark_style = "github-dark-high-contrast"

copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div:not(.highlight-text) > div.highlight pre"  # what a program prints is not for copying

llms_txt_uri_template = "_sources/{docname}.md"
llms_txt_title = "Solar Wind"
llms_txt_summary = (
    "An event dispatcher for Python: a producer fires an event on a topic, and each purpose decides how its events are "
    "handed out. In a process, as a server, or on a NATS JetStream cluster, with the same rules."
)
