"""Label priors: which labels co-occur, learned from label sets without images."""
