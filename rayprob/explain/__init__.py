"""Maps of where in an image a label is seen: one file per method in `methods`, each in the table EXPLAINERS."""
