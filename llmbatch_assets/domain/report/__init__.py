"""What the report says, before it is laid out."""
