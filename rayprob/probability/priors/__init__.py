"""What goes together, learned from label sets without images."""
