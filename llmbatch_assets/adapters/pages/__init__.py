"""HTML and Markdown pages, and their charts."""
