"""What `import rayprob as rp` offers: `verbs.py` makes things, `model.py` and `answer.py` use them."""
