"""`rayprob new`: writes a starter project, or one that fits a folder of labelled images."""
