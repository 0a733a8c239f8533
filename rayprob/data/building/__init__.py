"""From a recipe to shards: plan, check the images, write the tars, commit."""
