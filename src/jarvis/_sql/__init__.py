"""What SQL backends share: the transaction with its clock and names, and the statements; no files, no connections."""
