"""Systems side by side: every head and loss under one recipe, with seeds, intervals and tuned learning rates."""
