"""The numbers of a study as a CSV of every seed, and as Markdown tables with intervals that are made of this CSV alone."""
