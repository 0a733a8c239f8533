"""What people ask: expressions over labels, and their exact answers."""
