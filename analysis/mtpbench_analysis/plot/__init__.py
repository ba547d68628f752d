"""Comparisons and the power of a sweep as pictures: SVG, PNG or PDF.

What a picture shows is decided in `content` and `power_content`, in values and without matplotlib; the other
modules draw it. They are imported when a picture is asked for: every other command starts without matplotlib.
"""
