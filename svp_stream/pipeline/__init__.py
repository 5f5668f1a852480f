"""The street: engines (shared models), sessions (one person's stages), the budget ladder and the only wiring."""
