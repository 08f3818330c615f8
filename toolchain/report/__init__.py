"""What was measured and judged, for people and for CI: tables on a terminal, Markdown, pictures, JUnit and SARIF."""
