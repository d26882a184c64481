"""Tables: readers and exporters, one file per kind."""
