"""The Python API, `import rayprob as rp`: `datasets.py` and `verbs.py` create things, `model.py` and `answer.py` use them."""
