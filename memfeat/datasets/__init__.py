"""Where videos and scores come from: the demo that memfeat renders for itself."""
