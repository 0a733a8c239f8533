"""`rayprob serve`: bundles behind HTTP on Ray Serve, with batching, follow-up questions, reloading and a page for people."""
