"""Benchmarks of the product. Run each as a module from the repository."""
