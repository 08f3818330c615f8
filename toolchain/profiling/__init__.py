"""What artifacts cost in the places where they run: in one table, each place by what it can truly say."""
