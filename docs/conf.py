"""Sphinx configuration. `dlopt site` assembles what it builds: this folder, the executed lessons, the ledger."""

import os
import sys
from pathlib import Path

import dlopt_course

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "Optimising and tuning deep learning"
version = release = dlopt_course.__version__
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_codeautolink",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxext.opengraph",
    "chapter_numbers",
    "code_links",
    "docments_hook",
    "generated_pages",
    "offline_mathjax",
]
root_doc = "index"
exclude_patterns = ["_ext", "_static", "_snippets", "_data"]

# Lessons: executed by `dlopt run`, never here.
nb_custom_formats = {".ipynb": ["nbdev_reader.read", {}]}
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the {type}"
nb_code_prompt_hide = "Hide the {type}"
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 3

# Equations are numbered by lesson: (1.3) is the third of lesson 1.
numfig = math_numfig = True
numfig_secnum_depth = 1
math_eqref_format = "({number})"

# The reference is made from docments by docments_hook.
default_role = "py:obj"  # `name` in a docstring is code, and a link where there is an entry for it
add_module_names = False
autodoc_typehints = "none"  # the table of parameters has them
toc_object_entries_show_parents = "hide"

# Names in code are links to the reference.
codeautolink_concat_default = True
codeautolink_autodoc_inject = False
codeautolink_custom_blocks = {"ipython3": "code_links.without_definitions"}
suppress_warnings = [
    "codeautolink.parse_block",  # a lesson may show code that is wrong
    "codeautolink.clean_block",
    "config.cache",  # codeautolink puts a function into the configuration; each build is a fresh one anyway
]

copybutton_selector = "div.cell_input div.highlight pre, div[class*=highlight-python] pre, div[class*=highlight-sh] pre"
copybutton_exclude = ".linenos, .gp, .go"

ogp_site_url = os.environ.get("SITE_URL", "")  # where it will be published; links stay relative without it
ogp_social_cards = {"enable": False}

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["custom.css", "exported.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}
html_favicon = "_static/favicon.svg"
html_use_index = html_domain_indices = False  # the reference lists every name, the search finds it
html_show_sphinx = html_show_copyright = False
html_copy_source = True
html_theme_options = {
    "footer_content_items": [],
    "home_page_in_toc": False,
    "logo": {"text": project},
    "navbar_persistent": [],  # the sidebar has the search
    "pygments_dark_style": "a11y-high-contrast-dark",
    "pygments_light_style": "a11y-high-contrast-light",
    "search_bar_text": "Search the course",
    "show_navbar_depth": 1,
    "toc_title": "On this page",
    "use_fullscreen_button": False,
}
