"""What the `salt` script does, one verb a file."""
