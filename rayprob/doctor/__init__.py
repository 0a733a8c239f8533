"""What is looked at before a long job: facts of every node, and what to think of them."""
