"""Methods at matched FLOPs: runs from a configuration, trained, probed alike and gathered."""
