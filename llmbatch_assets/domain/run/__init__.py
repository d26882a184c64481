"""Records of a run: its progress, calls, manifest and quality."""
