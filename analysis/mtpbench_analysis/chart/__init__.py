"""Comparisons and the power of a sweep as charts: on the page, as a picture (SVG, PNG, PDF), in a terminal.

`content` and `power_content` say what a chart shows, in values. The others draw it: `svg` on the page where
no script runs, `terminal` in characters, `mpl_…` as pictures. Matplotlib is imported when a picture is asked
for: every other command starts without it.
"""
