"""What a root records and how it stays whole: metastore, locks, trash, recovery, check."""
