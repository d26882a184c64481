"""The same batch made by other frameworks, each run by the interpreter of its own virtual environment."""
