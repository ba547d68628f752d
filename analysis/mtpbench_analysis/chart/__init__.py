"""Charts of comparisons and of a sweep's power: on the page, as a picture (SVG, PNG, PDF), in a terminal.

`comparison_chart` and `power_chart` describe what a chart shows, in values. The others draw it: `svg` on the
page where no script runs, `terminal_curve` in characters, `picture` and `mpl_…` as pictures. Only a command
that draws a picture imports Matplotlib; every other command starts without it.
"""
