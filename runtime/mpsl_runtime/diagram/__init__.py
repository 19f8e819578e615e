"""A plan in, a picture of its network out: what is connected to what, sizes, and firing rates.

It runs the network only to count spikes, and only where data are given.
"""
