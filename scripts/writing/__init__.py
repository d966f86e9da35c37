"""What the data-writing scripts share: an OpenAI-compatible endpoint asked many questions, so that a crash loses no answer."""
