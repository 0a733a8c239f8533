"""Generated scenes: images with known labels that go together as the labels of COCO do."""
