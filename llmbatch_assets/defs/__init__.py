"""Where dg looks for components. There are none: batches are defined by the files in configs/."""
