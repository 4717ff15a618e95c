"""The two stages of a run: built from the configuration, trained, and left as files."""
