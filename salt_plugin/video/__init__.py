"""Files of videos and images: what they are, and their frames, exactly."""
