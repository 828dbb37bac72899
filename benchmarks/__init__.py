"""What it costs: one script a question, every figure beside those of the alternatives, losses included."""
