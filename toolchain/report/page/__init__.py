"""Reports as one self-contained HTML page: what stands on it, how it is drawn, and the page of each result."""
