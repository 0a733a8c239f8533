"""Generated scenes: images with known labels that co-occur like those of COCO."""
