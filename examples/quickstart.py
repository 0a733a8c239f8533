"""rayprob in one script: draw scenes, shard them, train, calibrate, and ask about an image. Run it in an empty folder:

    python quickstart.py

It prints what each step found. It needs no dataset, no GPU and no `if __name__ == "__main__"`; a second run finds everything
done. docs/python.md explains it; quickstart.ipynb is the same as a notebook, written by
`python make_notebook.py quickstart.py quickstart.ipynb`.
"""

# %% [markdown]
# # rayprob in two minutes
# Draw images, train a classifier on them, calibrate its probabilities, and ask it questions.

# %%
import rayprob as rp

# %% [markdown]
# **Images.** Drawn scenes with 12 of COCO's labels in their real co-occurrence, in COCO's layout; `shard` packs them into
# WebDataset tars, and splits a holdout off the training images. Your own images need only the recipe.

# %%
NUM_IMAGES, EPOCHS = 1000, 8

rp.draw_scenes("scenes", num_train=NUM_IMAGES, num_val=NUM_IMAGES // 5, size_px=96, num_labels=12)
recipe = rp.Recipe.parse(
    {
        "name": "scenes",
        "target": "shards",
        "splits": {
            split: {"images": f"scenes/{split}2014", "annotations": f"scenes/annotations/instances_{split}2014.json"}
            for split in ("train", "val")
        },
        "holdout": {"fraction": 0.2},
        "max_shard_samples": 100,
    }
)
print(rp.shard(recipe, use_ray=False))

# %% [markdown]
# **Train.** A run is a YAML file (`rp.Run.read`) or a dictionary. The head is a mixture: given the image, labels depend on one
# another.

# %%
run = rp.Run.parse(
    {
        "name": "quickstart",
        "data": {"root": "shards"},
        "stream": {"global_batch": 32, "lanes": 4, "loader_workers": 0},
        "transforms": {"train": {"name": "paper", "size_px": 64}, "evaluate": {"name": "resize", "size_px": 64}},
        "model": {"backbone": "shufflenet_v2_x0_5", "head": {"name": "mixture", "components": 6}},
        "loss": {"name": "mixture"},
        "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 2e-2, "clip_norm": 1.0},
        "duration": {"epochs": EPOCHS},
        "evaluation": {"every": {"epochs": 2}},
        "placement": {"num_workers": 1},
    }
)


def follow(event):
    if event["kind"] == "evaluation":
        print(f"step {event['step']:>3}: mAP {event['mAP']:.4f} on holdout")


print(rp.train(run, on_event=follow))

# %% [markdown]
# **Evaluate and calibrate.** Thresholds, calibrator and guarantees are fitted on the holdout; val is only reported on.

# %%
print(rp.evaluate(run.run_folder))

# %%
print(rp.calibrate(run.run_folder))

# %% [markdown]
# **Ask.** An image is a path, bytes, a PIL image, an array or a tensor, or a list of them.

# %%
model = rp.load(run.run_folder)
image = f"scenes/val2014/COCO_val2014_{NUM_IMAGES + 6:012d}.jpg"
answer = model.predict(image)
print(answer)

# %% [markdown]
# What if you know that there is a dining table? Evidence does not compute the image again.

# %%
print(answer.given({"dining table": True}))

# %%
for query in ("P(cup)", "P(cup | dining table)", "P(cup & bottle)", "P(count >= 3)"):
    print(f"{query} = {answer.prob(query):.4f}")

# %%
for line in answer.top_sets(3):
    print(f"{line.probability:.3f} {{{', '.join(line.labels)}}}")
