"""File formats: opened with one sentence for whatever is wrong, read window by window, and refused where they are damaged."""
