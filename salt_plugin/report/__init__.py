"""What a person reads of a run; knows run directories and arrays, no models."""
