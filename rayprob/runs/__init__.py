"""What a run is and what its folder contains."""
