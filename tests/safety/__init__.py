"""What a store must survive. Each test is named after the promise it holds."""
