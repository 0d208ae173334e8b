"""Files that are written whole or not at all, and how far long work is."""
