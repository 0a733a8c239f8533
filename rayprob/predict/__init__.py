"""`rayprob predict`: from a bundle and images to label sets, answers to queries, uncertainty, tables and figures."""
