"""`rayprob submit`: a run or sweep file as a job of a Ray cluster, over Ray's job API."""
