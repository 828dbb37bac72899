"""What is remembered and asked, what is kept and told of it, as values, and the rules of all backends; no files."""
