"""`rayprob compare`: two or more models on the same images, as numbers with intervals and as one self-contained page."""
