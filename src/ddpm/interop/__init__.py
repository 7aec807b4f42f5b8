"""Other people's weights: read into ours, and ours written for them. One module a format."""
