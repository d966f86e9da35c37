"""Where texts come from: files, the Hub, and the built-in world."""
