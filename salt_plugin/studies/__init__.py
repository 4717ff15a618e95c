"""Studies: pipelines of runs on a cluster or on this machine."""
