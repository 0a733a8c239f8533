"""`rayprob export`: a bundle as one ONNX graph, from the pixels of an image to calibrated probabilities."""
