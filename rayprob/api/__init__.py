"""What `import rayprob as rp` offers: `datasets.py` and `verbs.py` make things, `model.py` and `answer.py` use them."""
