"""Features of sliding windows over videos, by a frozen encoder."""
