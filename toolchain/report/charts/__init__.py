"""Charts: pictures of a report as inline SVG, each a pure function of values."""
